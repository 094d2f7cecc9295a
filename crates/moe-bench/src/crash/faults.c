// Preloaded into a run: counts its calls that change files below FAULT_BELOW. At the FAULT_AT-th it is killed (FAULT=kill), killed in
// the middle of a write (FAULT=torn), or the disk is full from there on (FAULT=full). With FAULT_COUNT the number goes into that file.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long count;
static long at = -1;
static char fault = 0;
static const char *below = NULL;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *kind = getenv("FAULT"), *number = getenv("FAULT_AT");
    below = getenv("FAULT_BELOW");
    fault = kind ? kind[0] : 0;
    at = number ? atol(number) : -1;
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("FAULT_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file) {
        fprintf(file, "%ld\n", atomic_load(&count));
        fclose(file);
    }
}

static int is_below(const char *path) { return below && path && strstr(path, below) != NULL; }

static int fd_is_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

// Counts a call; whether the disk refuses it.
static int refused(int grows) {
    long now = atomic_fetch_add(&count, 1) + 1;
    if (now == at && (fault == 'k' || fault == 't')) die();
    if (fault == 'f' && at >= 0 && now >= at && grows) {
        errno = ENOSPC;
        return 1;
    }
    return 0;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (fd_is_below(fd)) {
        if (fault == 't' && atomic_load(&count) + 1 == at) {
            REAL(write)(fd, bytes, length / 2);
            die();
        }
        if (refused(1)) return -1;
    }
    return REAL(write)(fd, bytes, length);
}

static int opened(const char *path, int flags, int (*real)(const char *, int, ...), mode_t mode) {
    if ((flags & (O_CREAT | O_TRUNC)) && is_below(path) && refused(flags & O_CREAT)) return -1;
    return real(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, int);
    va_end(rest);
    return opened(path, flags, (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"), mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, int);
    va_end(rest);
    return opened(path, flags, (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64"), mode);
}

int fsync(int fd) {
    if (fd_is_below(fd) && refused(0)) return -1;
    return REAL(fsync)(fd);
}

int ftruncate64(int fd, off64_t length) {
    if (fd_is_below(fd) && refused(0)) return -1;
    return REAL(ftruncate64)(fd, length);
}

int rename(const char *from, const char *to) {
    if (is_below(to) && refused(0)) return -1;
    return REAL(rename)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    if (is_below(path) && refused(1)) return -1;
    return REAL(mkdir)(path, mode);
}

int unlink(const char *path) {
    if (is_below(path) && refused(0)) return -1;
    return REAL(unlink)(path);
}

int unlinkat(int folder, const char *path, int flags) {
    if (fd_is_below(folder) && refused(0)) return -1;
    return REAL(unlinkat)(folder, path, flags);
}
