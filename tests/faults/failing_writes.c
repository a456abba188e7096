/* Preloaded before libc: makes one write below a folder fail, whichever library does it, and lists all of them.

   cc -shared -fPIC -O1 -o failing_writes.so failing_writes.c -ldl, then LD_PRELOAD. Nothing fails before `arm_writes`.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char root[PATH_MAX], operation[16], pattern[PATH_MAX];
static int trace = -1, nth, error, seen, full;

/* From now on the `n`th `op` on a path below `folder` that matches `glob` fails with `code`; with ENOSPC so does
   whatever needs space after it. Every write is added to the file `log`, as "OPERATION PATH". */
void arm_writes(const char *folder, const char *log, const char *op, const char *glob, int n, int code) {
    trace = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    strcpy(operation, op);
    strcpy(pattern, glob);
    nth = n;
    error = code;
    strcpy(root, folder);
}

static int fails(const char *op, int folder, const char *path) {
    char absolute[2 * PATH_MAX], line[2 * PATH_MAX + 32];
    size_t length = strlen(root);
    if (!length)
        return 0;
    if (path[0] == '/')
        snprintf(absolute, sizeof absolute, "%s", path);
    else {
        char at[PATH_MAX] = "", link[64];
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        if (readlink(link, at, sizeof at - 1) < 0)
            return 0;
        snprintf(absolute, sizeof absolute, "%s/%s", at, path);
    }
    if (strncmp(absolute, root, length) || absolute[length] != '/')
        return 0;
    const char *below = absolute + length + 1;
    int size = snprintf(line, sizeof line, "%s %s\n", op, below);
    syscall(SYS_write, trace, line, size);
    int needs_space = strcmp(op, "fsync") && strcmp(op, "rename");
    if ((__atomic_load_n(&full, __ATOMIC_SEQ_CST) && needs_space) ||
        (!strcmp(op, operation) && !fnmatch(pattern, below, FNM_PATHNAME) && __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) == nth)) {
        if (error == ENOSPC)
            __atomic_store_n(&full, 1, __ATOMIC_SEQ_CST);
        errno = error;
        return 1;
    }
    return 0;
}

static int fails_at(const char *op, int descriptor) {
    char link[64], path[PATH_MAX] = "";
    if (!root[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    return readlink(link, path, sizeof path - 1) > 0 && path[0] == '/' && fails(op, AT_FDCWD, path);
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT; }

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                         \
        va_end(rest);                                                                                                  \
        return writes(flags) && fails("open", AT_FDCWD, path) ? -1 : REAL(name)(path, flags, mode);                    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int folder, const char *path, int flags, ...) {                                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                         \
        va_end(rest);                                                                                                  \
        return writes(flags) && fails("open", folder, path) ? -1 : REAL(name)(folder, path, flags, mode);              \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                                                    \
    FILE *name(const char *path, const char *mode) {                                                                   \
        return strpbrk(mode, "wa+") && fails("open", AT_FDCWD, path) ? NULL : REAL(name)(path, mode);                  \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int fd, const void *data, size_t n) { return fails_at("write", fd) ? -1 : REAL(write)(fd, data, n); }
ssize_t writev(int fd, const struct iovec *parts, int n) {
    return fails_at("write", fd) ? -1 : REAL(writev)(fd, parts, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    return fails_at("write", fd) ? -1 : REAL(pwrite)(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    return fails_at("write", fd) ? -1 : REAL(pwrite64)(fd, data, n, at);
}
size_t fwrite(const void *data, size_t size, size_t n, FILE *stream) {
    return fails_at("write", fileno(stream)) ? 0 : REAL(fwrite)(data, size, n, stream);
}
int ftruncate(int fd, off_t size) { return fails_at("truncate", fd) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails_at("truncate", fd) ? -1 : REAL(ftruncate64)(fd, size); }
int fsync(int fd) { return fails_at("fsync", fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_at("fsync", fd) ? -1 : REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) {
    return fails("rename", AT_FDCWD, to) ? -1 : REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    return fails("rename", b, to) ? -1 : REAL(renameat)(a, from, b, to);
}
int mkdir(const char *path, mode_t mode) { return fails("mkdir", AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) {
    return fails("mkdir", folder, path) ? -1 : REAL(mkdirat)(folder, path, mode);
}
