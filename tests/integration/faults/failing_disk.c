/* Loaded with LD_PRELOAD: of all calls that change what lies below a folder, or start something, one fails.
 *
 *   FAILING_DISK_ROOT   the folder, absolute and without links
 *   FAILING_DISK_CALLS  "writes": whatever changes a file or a directory; "opens": whatever needs a descriptor;
 *                       "starts": whatever starts a thread or, by fork(2), a process, wherever
 *   FAILING_DISK_AT     which call fails, counted from 1; 0 for none
 *   FAILING_DISK_ERROR  with what: a number of errno.h
 *   FAILING_DISK_NOTE   a file of 4096 zero bytes, outside the folder, which every process maps. Its first eight
 *                       bytes count the calls; from byte 16 on it is told which one failed, as a text.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, OPEN = 2, START = 4 };

static char root[PATH_MAX];
static size_t root_length;
static enum kind wanted;
static long fails_at;
static int fails_with;
static struct note {
    atomic_long calls;
    long unused;
    char told[4080];
} *note;

__attribute__((constructor)) static void begin(void)
{
    const char *folder = getenv("FAILING_DISK_ROOT"), *file = getenv("FAILING_DISK_NOTE");
    const char *calls = getenv("FAILING_DISK_CALLS"), *at = getenv("FAILING_DISK_AT");
    const char *error = getenv("FAILING_DISK_ERROR");
    if (!folder || !file || !calls || !at || !error)
        return;
    int descriptor = open(file, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return;
    void *mapped = mmap(NULL, sizeof *note, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped == MAP_FAILED)
        return;
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    wanted = !strcmp(calls, "opens") ? OPEN : !strcmp(calls, "starts") ? START : WRITE;
    fails_at = atol(at);
    fails_with = atoi(error);
    note = mapped; /* last: from now on calls are counted */
}

/* The path that a descriptor was opened by; false for a pipe, a socket and the like. */
static int path_of(int descriptor, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return path[0] == '/';
}

static int is_below(const char *path)
{
    return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int is_the_one(const char *name, const char *path)
{
    if (atomic_fetch_add(&note->calls, 1) + 1 != fails_at)
        return 0;
    snprintf(note->told, sizeof note->told, "%s %s", name, path);
    errno = fails_with;
    return 1;
}

static int fails(enum kind kinds, const char *name, const char *path)
{
    return (kinds & wanted) && is_below(path) && is_the_one(name, path);
}

static int fails_on(enum kind kinds, const char *name, int descriptor)
{
    char path[PATH_MAX];
    int before = errno;
    if (!note || !(kinds & wanted))
        return 0;
    if (path_of(descriptor, path, sizeof path) && fails(kinds, name, path))
        return 1;
    errno = before;
    return 0;
}

static int fails_at_path(enum kind kinds, const char *name, int folder, const char *path)
{
    char whole[2 * PATH_MAX];
    int before = errno;
    if (!note || !path)
        return 0;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        if (folder == AT_FDCWD ? !getcwd(whole, PATH_MAX) : !path_of(folder, whole, PATH_MAX)) {
            errno = before;
            return 0;
        }
        size_t length = strlen(whole);
        snprintf(whole + length, sizeof whole - length, "/%s", path);
    }
    if (fails(kinds, name, whole))
        return 1;
    errno = before;
    return 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Calls on a descriptor, on a path, and on two paths, of which the second one is made. */
#define ON_DESCRIPTOR(type, name, parameters, descriptor, ...) \
    type name parameters { return fails_on(WRITE, #name, descriptor) ? (type)-1 : NEXT(name)(__VA_ARGS__); }
#define ON_PATH(name, parameters, folder, path, ...) \
    int name parameters { return fails_at_path(WRITE, #name, folder, path) ? -1 : NEXT(name)(__VA_ARGS__); }

ON_DESCRIPTOR(ssize_t, write, (int fd, const void *data, size_t size), fd, fd, data, size)
ON_DESCRIPTOR(ssize_t, writev, (int fd, const struct iovec *parts, int count), fd, fd, parts, count)
ON_DESCRIPTOR(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), fd, fd, data, size, at)
ON_DESCRIPTOR(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, fd, data, size, at)
ON_DESCRIPTOR(ssize_t, pwritev64, (int fd, const struct iovec *p, int n, off64_t at), fd, fd, p, n, at)
ON_DESCRIPTOR(int, ftruncate, (int fd, off_t size), fd, fd, size)
ON_DESCRIPTOR(int, ftruncate64, (int fd, off64_t size), fd, fd, size)
ON_DESCRIPTOR(int, fallocate, (int fd, int mode, off_t at, off_t size), fd, fd, mode, at, size)
ON_DESCRIPTOR(int, fallocate64, (int fd, int mode, off64_t at, off64_t size), fd, fd, mode, at, size)
ON_DESCRIPTOR(int, fsync, (int fd), fd, fd)
ON_DESCRIPTOR(int, fdatasync, (int fd), fd, fd)
ON_DESCRIPTOR(int, futimens, (int fd, const struct timespec times[2]), fd, fd, times)
ON_DESCRIPTOR(int, fchmod, (int fd, mode_t mode), fd, fd, mode)
ON_DESCRIPTOR(int, fchown, (int fd, uid_t user, gid_t group), fd, fd, user, group)
ON_DESCRIPTOR(ssize_t, sendfile64, (int out, int in, off64_t *at, size_t n), out, out, in, at, n)
ON_DESCRIPTOR(ssize_t, copy_file_range, (int in, off64_t *a, int out, off64_t *b, size_t n, unsigned flags), out,
              in, a, out, b, n, flags)
ON_PATH(truncate64, (const char *path, off64_t size), AT_FDCWD, path, path, size)
ON_PATH(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, path, mode)
ON_PATH(mkdirat, (int folder, const char *path, mode_t mode), folder, path, folder, path, mode)
ON_PATH(rmdir, (const char *path), AT_FDCWD, path, path)
ON_PATH(unlink, (const char *path), AT_FDCWD, path, path)
ON_PATH(unlinkat, (int folder, const char *path, int flags), folder, path, folder, path, flags)
ON_PATH(rename, (const char *from, const char *to), AT_FDCWD, to, from, to)
ON_PATH(renameat, (int a, const char *from, int b, const char *to), b, to, a, from, b, to)
ON_PATH(link, (const char *from, const char *to), AT_FDCWD, to, from, to)
ON_PATH(linkat, (int a, const char *from, int b, const char *to, int flags), b, to, a, from, b, to, flags)
ON_PATH(symlink, (const char *target, const char *path), AT_FDCWD, path, target, path)
ON_PATH(symlinkat, (const char *target, int folder, const char *path), folder, path, target, folder, path)
ON_PATH(chmod, (const char *path, mode_t mode), AT_FDCWD, path, path, mode)
ON_PATH(fchmodat, (int folder, const char *path, mode_t mode, int flags), folder, path, folder, path, mode, flags)
ON_PATH(chown, (const char *path, uid_t user, gid_t group), AT_FDCWD, path, path, user, group)
ON_PATH(lchown, (const char *path, uid_t user, gid_t group), AT_FDCWD, path, path, user, group)
ON_PATH(utimensat, (int folder, const char *path, const struct timespec times[2], int flags), folder, path, folder,
        path, times, flags)

/* Opening a file needs a descriptor, and changes the directory where it makes the file. */
static enum kind opening(int flags) { return flags & (O_CREAT | O_TRUNC) ? OPEN | WRITE : OPEN; }

#define MODE_OF(flags, mode) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }
#define OPENS(name) \
    int name(const char *path, int flags, ...) \
    { \
        MODE_OF(flags, mode) \
        return fails_at_path(opening(flags), #name, AT_FDCWD, path) ? -1 : NEXT(name)(path, flags, mode); \
    }
#define OPENS_AT(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        MODE_OF(flags, mode) \
        return fails_at_path(opening(flags), #name, folder, path) ? -1 : NEXT(name)(folder, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

DIR *opendir(const char *path)
{
    return fails_at_path(OPEN, "opendir", AT_FDCWD, path) ? NULL : NEXT(opendir)(path);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*begins)(void *), void *with)
{
    if (note && wanted == START && is_the_one("pthread_create", "a thread"))
        return fails_with;
    return NEXT(pthread_create)(thread, attributes, begins, with);
}

pid_t fork(void)
{
    return note && wanted == START && is_the_one("fork", "a process") ? -1 : NEXT(fork)();
}
