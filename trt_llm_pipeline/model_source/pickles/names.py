"""What a pickle of weights may ask for: the names that `torch.load(weights_only=True)` knows, and no others.

A list of what is allowed, not of what is forbidden: nobody can list every function of a Python installation
that runs a command. The facts are those of torch 2.13's `_weights_only_unpickler`; a test compares the two
where torch is installed.
"""

from __future__ import annotations

#: A module, and a name in it.
Name = tuple[str, str]

#: Bytes of an element, by the kind of legacy storage.
_ELEMENT_BYTES = {
    "BFloat16": 2,
    "Bool": 1,
    "Byte": 1,
    "Char": 1,
    "ComplexDouble": 16,
    "ComplexFloat": 8,
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "Int": 4,
    "Long": 8,
    "Short": 2,
}
_QUANTIZED_BYTES = {"QInt32": 4, "QInt8": 1, "QUInt2x4": 1, "QUInt4x2": 1, "QUInt8": 1}
_TENSOR_KINDS = ("BFloat16", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
_TENSOR_MODULES = ("torch", "torch.cuda", "torch.sparse", "torch.cuda.sparse")

#: Kinds of storage, and how many bytes an element of each has.
STORAGES: dict[Name, int] = {
    **{("torch", f"{kind}Storage"): size for kind, size in (_ELEMENT_BYTES | _QUANTIZED_BYTES).items()},
    **{("torch.cuda", f"{kind}Storage"): size for kind, size in _ELEMENT_BYTES.items()},
    ("torch.storage", "UntypedStorage"): 1,
}

#: Functions and classes whose result is a tensor.
TENSORS: frozenset[Name] = frozenset(
    {
        ("torch", "Tensor"),
        ("torch.nn.parameter", "Parameter"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        *(
            ("torch._utils", f"_rebuild_{what}")
            for what in (
                "device_tensor_from_cpu_tensor",
                "device_tensor_from_numpy",
                "meta_tensor_no_storage",
                "nested_tensor",
                "parameter",
                "parameter_with_state",
                "qtensor",
                "sparse_tensor",
                "tensor",
                "tensor_v2",
                "tensor_v3",
                "wrapper_subclass",
            )
        ),
        *(
            (module, f"{kind}Tensor")
            for module in ("torch", "torch.cuda")
            for kind in (*_TENSOR_KINDS, "Bool")
        ),
        *(
            (f"{module}.sparse", f"{kind}Tensor")
            for module in ("torch", "torch.cuda")
            for kind in _TENSOR_KINDS
        ),
    }
)

#: Classes of mappings that items may be set in.
MAPPINGS: frozenset[Name] = frozenset({("collections", "OrderedDict"), ("collections", "Counter")})

#: Turns text into bytes; that is how bytes are pickled for Python 2.
ENCODE: Name = ("_codecs", "encode")

#: Whatever else may be called.
OTHER_CALLABLES: frozenset[Name] = frozenset(
    {
        ENCODE,
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "set"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch.serialization", "_get_layout"),
        ("torch.storage", "TypedStorage"),
        ("torch.storage", "UntypedStorage"),
    }
)

#: Names of values.
_VALUES: frozenset[Name] = frozenset(
    ("torch", name)
    for name in (
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (*range(1, 9), 16, 32, 64)),
        *(f"bits{shape}" for shape in ("16", "1x8", "2x4", "4x2", "8")),
        *("bool", "bfloat16", "float16", "float32", "float64", "complex32", "complex64", "complex128"),
        *("float4_e2m1fn_x2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
        "float8_e8m0fnu",
        *("qint32", "qint8", "quint2x4", "quint4x2", "quint8"),
        *("per_channel_affine", "per_channel_affine_float_qparams", "per_channel_symmetric"),
        *("per_tensor_affine", "per_tensor_symmetric"),
    )
)

CALLABLES: frozenset[Name] = TENSORS | MAPPINGS | OTHER_CALLABLES
ALLOWED: frozenset[Name] = CALLABLES | _VALUES | frozenset(STORAGES)

#: Those of them that are functions: they have no `__new__` of their own.
FUNCTIONS: frozenset[Name] = frozenset(
    name for name in CALLABLES if name[1].startswith("_") or name == ENCODE
)


def modern(module: str, name: str) -> Name:
    """The name as Python 3 has it; pickles of protocol 2 and below say `__builtin__`."""
    return ("builtins" if module == "__builtin__" else module, name)
