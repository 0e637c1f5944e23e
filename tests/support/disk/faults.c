/* A disk that fails, for a program that this library is loaded into before all others (LD_PRELOAD).
 *
 * It stands between the program and libc for the files whose path begins with FAULTS_PATH. The file FAULTS_CONTROL is
 * mapped into both this program and the test, which reads and writes the fields below in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NO_SPACE = 1, IO_ERROR = 2, SHORT_WRITE = 3 };

struct control {
    /* Operations so far. */
    uint64_t count;
    /* The operation that fails; 0 for none. */
    uint64_t strike_at;
    uint64_t kind;
    /* Whether all after it fail, too. */
    uint64_t lasting;
    /* How many have failed. */
    uint64_t struck;
    /* Bytes that the files may still grow by; negative for any number. */
    int64_t room;
};

static struct control *control(void) {
    static struct control *mapped;
    if (mapped == NULL) {
        const char *path = getenv("FAULTS_CONTROL");
        int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0) return NULL;
        void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (at == MAP_FAILED) return NULL;
        mapped = at;
    }
    return mapped;
}

static int is_ours(const char *path) {
    const char *prefix = getenv("FAULTS_PATH");
    return prefix != NULL && strncmp(path, prefix, strlen(prefix)) == 0;
}

static int fd_is_ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return is_ours(path);
}

/* What becomes of an operation: 0, or the error. SHORT_WRITE only where `may_be_short`. */
static int verdict(int may_be_short) {
    struct control *c = control();
    if (c == NULL) return 0;
    uint64_t nth = __atomic_add_fetch(&c->count, 1, __ATOMIC_SEQ_CST);
    uint64_t at = __atomic_load_n(&c->strike_at, __ATOMIC_SEQ_CST);
    if (at == 0 || nth < at) return 0;
    if (c->kind == SHORT_WRITE) {
        /* Half of it is written, and then there is no space for the rest. */
        if (nth == at && may_be_short) return SHORT_WRITE;
        if (nth > at + 1 && !c->lasting) return 0;
    } else if (nth > at && !c->lasting) {
        return 0;
    }
    __atomic_add_fetch(&c->struck, 1, __ATOMIC_SEQ_CST);
    return c->kind == IO_ERROR ? EIO : ENOSPC;
}

/* Whether a file may grow to `end`; the room is taken. */
static int may_grow(int fd, off_t end) {
    struct control *c = control();
    struct stat stat;
    if (c == NULL || __atomic_load_n(&c->room, __ATOMIC_SEQ_CST) < 0 || fstat(fd, &stat) != 0) return 1;
    int64_t growth = end - stat.st_size;
    if (growth <= 0) return 1;
    if (growth > __atomic_load_n(&c->room, __ATOMIC_SEQ_CST)) return 0;
    __atomic_sub_fetch(&c->room, growth, __ATOMIC_SEQ_CST);
    return 1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define WRITE_AT(name)                                                                \
    ssize_t name(int fd, const void *bytes, size_t n, off_t at) {                     \
        REAL(name);                                                                   \
        if (!fd_is_ours(fd)) return real(fd, bytes, n, at);                           \
        int is = verdict(n > 1);                                                      \
        if (is == SHORT_WRITE) return real(fd, bytes, n / 2, at);                     \
        if (is == 0 && !may_grow(fd, at + (off_t)n)) is = ENOSPC;                     \
        if (is != 0) { errno = is; return -1; }                                       \
        return real(fd, bytes, n, at);                                                \
    }

WRITE_AT(pwrite)
WRITE_AT(pwrite64)

ssize_t write(int fd, const void *bytes, size_t n) {
    REAL(write);
    if (!fd_is_ours(fd)) return real(fd, bytes, n);
    int is = verdict(n > 1);
    if (is == SHORT_WRITE) return real(fd, bytes, n / 2);
    if (is == 0 && !may_grow(fd, lseek(fd, 0, SEEK_CUR) + (off_t)n)) is = ENOSPC;
    if (is != 0) { errno = is; return -1; }
    return real(fd, bytes, n);
}

#define SYNC(name)                                                                    \
    int name(int fd) {                                                                \
        REAL(name);                                                                   \
        int is = fd_is_ours(fd) ? verdict(0) : 0;                                     \
        if (is != 0) { errno = is; return -1; }                                       \
        return real(fd);                                                              \
    }

SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name)                                                                \
    int name(int fd, off_t size) {                                                    \
        REAL(name);                                                                   \
        if (!fd_is_ours(fd)) return real(fd, size);                                   \
        int is = verdict(0);                                                          \
        if (is == 0 && !may_grow(fd, size)) is = ENOSPC;                              \
        if (is != 0) { errno = is; return -1; }                                       \
        return real(fd, size);                                                        \
    }

TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

int unlink(const char *path) {
    REAL(unlink);
    struct stat stat;
    struct control *c = is_ours(path) ? control() : NULL;
    off_t size = c != NULL && lstat(path, &stat) == 0 ? stat.st_size : 0;
    int done = real(path);
    if (done == 0 && c != NULL && __atomic_load_n(&c->room, __ATOMIC_SEQ_CST) >= 0)
        __atomic_add_fetch(&c->room, size, __ATOMIC_SEQ_CST);
    return done;
}
