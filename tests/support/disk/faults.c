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
    /* The operation that fails, counted from now; 0 for none. Counted down, so that it is armed by one store. */
    int64_t left;
    uint64_t kind;
    /* Whether all after it fail, too. */
    uint64_t lasting;
    /* How many have failed. */
    uint64_t struck;
    /* Bytes that the files may still grow by, and whether there is such a bound. */
    int64_t room;
    uint64_t bounded;
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
    if (!__atomic_load_n(&c->lasting, __ATOMIC_SEQ_CST)) {
        if (__atomic_load_n(&c->left, __ATOMIC_SEQ_CST) == 0) return 0;
        int64_t left = __atomic_sub_fetch(&c->left, 1, __ATOMIC_SEQ_CST);
        if (left > 0) return 0;
        if (left < 0) {
            /* Another thread's operation was the one. */
            __atomic_store_n(&c->left, 0, __ATOMIC_SEQ_CST);
            return 0;
        }
        if (c->kind == SHORT_WRITE && may_be_short) {
            /* Half of it is written, and the next one finds no space for the rest. */
            __atomic_store_n(&c->kind, NO_SPACE, __ATOMIC_SEQ_CST);
            __atomic_store_n(&c->left, 1, __ATOMIC_SEQ_CST);
            return SHORT_WRITE;
        }
    }
    __atomic_add_fetch(&c->struck, 1, __ATOMIC_SEQ_CST);
    return c->kind == IO_ERROR ? EIO : ENOSPC;
}

/* Whether a file may grow to `end`; the room is taken. */
static int may_grow(int fd, off_t end) {
    struct control *c = control();
    struct stat stat;
    if (c == NULL || !__atomic_load_n(&c->bounded, __ATOMIC_SEQ_CST) || fstat(fd, &stat) != 0) return 1;
    int64_t growth = end - stat.st_size, room = __atomic_load_n(&c->room, __ATOMIC_SEQ_CST);
    if (growth <= 0) return 1;
    do {
        if (growth > room) return 0;
    } while (!__atomic_compare_exchange_n(&c->room, &room, room - growth, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
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
    if (done == 0 && c != NULL) __atomic_add_fetch(&c->room, size, __ATOMIC_SEQ_CST);
    return done;
}
