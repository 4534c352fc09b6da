/* Preloaded into an extraction under test: system calls below one folder fail, stop short or are
 * interrupted, and the clock jumps, all as the test asks through world_set and world_jump. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { NONE, WRITE, FSYNC, RENAME, READ, CREATE };

static int fault_call, fault_error;
static long fault_number, num_calls, jump_seconds;
static char folder[4096];

/* Let the number-th call fail with an errno (0: every other one), or, where error is -1, let all
 * calls move only a third of their bytes. */
void world_set(int call, int error, long number, const char *below)
{
    fault_call = call, fault_error = error, fault_number = number, num_calls = 0;
    snprintf(folder, sizeof folder, "%s", below);
}

long world_calls(void) { return num_calls; }
void world_jump(long seconds) { jump_seconds = seconds; }

static int is_below(const char *path) { return folder[0] && !strncmp(path, folder, strlen(folder)); }

static int is_file_below(int descriptor)
{
    char link[64], path[4096];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_below(path);
}

static int fails(int call)
{
    if (call != fault_call)
        return 0;
    num_calls++;
    if (fault_error <= 0 || (fault_number ? num_calls != fault_number : num_calls % 2 == 0))
        return 0;
    errno = fault_error;
    return 1;
}

static size_t moved(int call, size_t size)
{
    return call == fault_call && fault_error == -1 && size > 3 ? size / 3 : size;
}

#define REAL(name, type, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

ssize_t write(int descriptor, const void *bytes, size_t size)
{
    if (fault_call == WRITE && is_file_below(descriptor)) {
        if (fails(WRITE))
            return -1;
        size = moved(WRITE, size);
    }
    return REAL("write", ssize_t, int, const void *, size_t)(descriptor, bytes, size);
}

ssize_t read(int descriptor, void *bytes, size_t size)
{
    if (fault_call == READ && is_file_below(descriptor)) {
        if (fails(READ))
            return -1;
        size = moved(READ, size);
    }
    return REAL("read", ssize_t, int, void *, size_t)(descriptor, bytes, size);
}

int fsync(int descriptor)
{
    if (fault_call == FSYNC && is_file_below(descriptor) && fails(FSYNC))
        return -1;
    return REAL("fsync", int, int)(descriptor);
}

int rename(const char *from, const char *to)
{
    if (fault_call == RENAME && is_below(to) && fails(RENAME))
        return -1;
    return REAL("rename", int, const char *, const char *)(from, to);
}

static int opened(const char *name, const char *path, int flags, mode_t mode)
{
    if (fault_call == CREATE && flags & O_CREAT && is_below(path) && fails(CREATE))
        return -1;
    return REAL(name, int, const char *, int, ...)(path, flags, mode);
}

#define OPEN(name)                                         \
    int name(const char *path, int flags, ...)             \
    {                                                      \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                      \
        return opened(#name, path, flags, mode);           \
    }

OPEN(open)
OPEN(open64)

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int status = REAL("clock_gettime", int, clockid_t, struct timespec *)(clock, now);
    if (!status && clock == CLOCK_REALTIME)
        now->tv_sec += jump_seconds;
    return status;
}
