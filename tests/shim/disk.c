/*
 * A disk that can be told to fail, and whose every step is written down.
 *
 * Preloaded into the daemon (LD_PRELOAD), it stands between the program and the C library. Of the
 * files of one book it records, in the order in which things happen, what is created, written, cut,
 * removed and synced; of the connections that the process opens, what leaves and what arrives. A test
 * can then tell what a loss of power at any moment would have left on the disk, and what had been
 * promised to others by then. What the page cache would have kept, which is all that `kill -9` can
 * show, plays no part in that.
 *
 * The record is a row of events: a header of 24 bytes, then `length` bytes. See `kind` below; the
 * reader is tests/support/recording.rs.
 *
 * Environment: DISK_SHIM_BOOK (the database file), DISK_SHIM_LOG (the record, appended to), and for
 * faults DISK_SHIM_FAULT (see `faults`), DISK_SHIM_FILE (`book` or `wal`), DISK_SHIM_TRIGGER (a file:
 * while it is not there, nothing fails; when something does, one with `.met` behind its name is made) and
 * DISK_SHIM_SKIP (how many calls still succeed after the trigger is there).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS_MAX 65536

/* What a descriptor is about. The first four are also the numbers of files in the record. */
enum about { BOOK = 0, WAL = 1, JOURNAL = 2, FOLDER = 3, SOCKET = 4, NOTHING = 5 };

/* Kinds of events. */
enum kind {
    STARTED = 'P',     /* a process begins: no descriptor is open */
    CREATED = 'C',     /* file `number` was not there and is now */
    OPENED = 'O',      /* `fd` is file `number` */
    CLOSED = 'X',      /* `fd` is nothing any more */
    WRITTEN = 'W',     /* these bytes at offset `number` of `fd` */
    CUT = 'T',         /* `fd` has `number` bytes now */
    SYNC_BEGUN = 'B',  /* a sync of `fd` begins */
    SYNCED = 'S',      /* it has succeeded */
    SYNC_FAILED = 'E', /* it has failed */
    REMOVED = 'U',     /* file `number` is gone */
    LEAVING = 'N',     /* these bytes are about to leave through `fd` */
    LEFT = 'n',        /* `number` of them have left */
    ARRIVED = 'R',     /* these bytes have arrived through `fd` */
};

struct header {
    uint32_t kind;
    int32_t fd;
    uint64_t number;
    uint64_t length;
};

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static unsigned char about_fd[FDS_MAX];
static int log_fd = -1;
static char names[4][4096];
static const char *trigger;
static long skip;

static struct {
    int writes;   /* pwrite fails */
    int is_short; /* it writes half first */
    int syncs;    /* fsync and fdatasync fail */
    int error;
    int once;
    int lies; /* syncs do nothing and say that they succeeded */
    enum about file;
} fault;

static const struct {
    const char *name;
    int writes, is_short, syncs, error, once, lies;
} faults[] = {
    {"write-enospc", 1, 0, 0, ENOSPC, 0, 0}, {"write-eio", 1, 0, 0, EIO, 0, 0},
    {"write-short", 1, 1, 0, ENOSPC, 0, 0},  {"sync-eio", 0, 0, 1, EIO, 0, 0},
    {"sync-eio-once", 0, 0, 1, EIO, 1, 0},   {"sync-lies", 0, 0, 0, 0, 0, 1},
};

static void give_up(const char *why) {
    fprintf(stderr, "disk shim: %s\n", why);
    abort();
}

#define REAL(name, type)                                                                             \
    static __typeof__(type) real;                                                                    \
    if (!real && !(real = (__typeof__(type))dlsym(RTLD_NEXT, name))) give_up("no " name)

static enum about about(int fd) {
    return fd < 0 || fd >= FDS_MAX || about_fd[fd] == 0 ? NOTHING : (enum about)(about_fd[fd] - 1);
}

static void set_about(int fd, enum about what) {
    if (fd >= FDS_MAX) give_up("too many descriptors");
    about_fd[fd] = (unsigned char)(what == NOTHING ? 0 : what + 1);
}

static int is_file(int fd) { return about(fd) <= FOLDER; }

/* One write for each event, so that only the last one can be cut off when the process ends. */
static void note_parts(enum kind kind, int fd, uint64_t number, const struct iovec *parts, int count) {
    if (log_fd < 0) return;
    struct header header = {kind, fd, number, 0};
    for (int i = 0; i < count; i++) header.length += parts[i].iov_len;
    size_t size = sizeof header + header.length;
    char *bytes = malloc(size);
    if (!bytes) give_up("no memory");
    memcpy(bytes, &header, sizeof header);
    char *end = bytes + sizeof header;
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len) memcpy(end, parts[i].iov_base, parts[i].iov_len);
        end += parts[i].iov_len;
    }
    if (syscall(SYS_write, log_fd, bytes, size) != (long)size) give_up("the record cannot be written");
    free(bytes);
}

static void note(enum kind kind, int fd, uint64_t number, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    note_parts(kind, fd, number, &part, 1);
}

static void note_alone(enum kind kind, int fd, uint64_t number) {
    pthread_mutex_lock(&one_at_a_time);
    note(kind, fd, number, NULL, 0);
    pthread_mutex_unlock(&one_at_a_time);
}

__attribute__((constructor)) static void start(void) {
    const char *book = getenv("DISK_SHIM_BOOK"), *log = getenv("DISK_SHIM_LOG");
    const char *name = getenv("DISK_SHIM_FAULT"), *file = getenv("DISK_SHIM_FILE");
    if (!book || !log) give_up("DISK_SHIM_BOOK and DISK_SHIM_LOG are needed");
    snprintf(names[BOOK], sizeof names[0], "%s", book);
    snprintf(names[WAL], sizeof names[0], "%s-wal", book);
    snprintf(names[JOURNAL], sizeof names[0], "%s-journal", book);
    snprintf(names[FOLDER], sizeof names[0], "%s", book);
    char *slash = strrchr(names[FOLDER], '/');
    if (!slash) give_up("DISK_SHIM_BOOK must be absolute");
    *slash = 0;
    if (name) {
        size_t i = 0, count = sizeof faults / sizeof faults[0];
        while (i < count && strcmp(faults[i].name, name)) i++;
        if (i == count) give_up("no such fault");
        fault.writes = faults[i].writes, fault.is_short = faults[i].is_short;
        fault.syncs = faults[i].syncs, fault.error = faults[i].error;
        fault.once = faults[i].once, fault.lies = faults[i].lies;
    }
    fault.file = file && !strcmp(file, "book") ? BOOK : WAL;
    trigger = getenv("DISK_SHIM_TRIGGER");
    skip = getenv("DISK_SHIM_SKIP") ? atol(getenv("DISK_SHIM_SKIP")) : 0;
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) give_up("the record cannot be opened");
    note(STARTED, -1, 0, NULL, 0);
}

/* Whether this call is to fail. Called with the lock held. */
static int fails(int asked, int fd) {
    if (!asked || about(fd) != fault.file) return 0;
    if (trigger && syscall(SYS_faccessat, AT_FDCWD, trigger, F_OK) != 0) return 0;
    if (skip > 0) return skip--, 0;
    if (fault.once == 2) return 0;
    if (fault.once == 1) fault.once = 2;
    if (!trigger) return 1;
    char met[4096];
    snprintf(met, sizeof met, "%s.met", trigger);
    syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, met, O_WRONLY | O_CREAT, 0600));
    return 1;
}

/* --- files --- */

typedef int (*open_fn)(const char *, int, ...);

static int open_and_note(open_fn real, const char *path, int flags, mode_t mode) {
    enum about file = BOOK;
    while (file <= FOLDER && strcmp(path, names[file])) file++;
    if (file > FOLDER) return real(path, flags, mode);
    pthread_mutex_lock(&one_at_a_time);
    int is_new = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
    int fd = real(path, flags, mode);
    if (fd >= 0) {
        if (is_new) note(CREATED, fd, file, NULL, 0);
        note(OPENED, fd, file, NULL, 0);
        if (flags & O_TRUNC) note(CUT, fd, 0, NULL, 0);
        set_about(fd, file);
    }
    pthread_mutex_unlock(&one_at_a_time);
    return fd;
}

#define MODE_OF(flags)                                                                               \
    mode_t mode = 0;                                                                                 \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {                                 \
        va_list rest;                                                                                \
        va_start(rest, flags);                                                                       \
        mode = va_arg(rest, mode_t);                                                                 \
        va_end(rest);                                                                                \
    }

int open(const char *path, int flags, ...) {
    REAL("open", open_fn);
    MODE_OF(flags)
    return open_and_note(real, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    REAL("open64", open_fn);
    MODE_OF(flags)
    return open_and_note(real, path, flags, mode);
}

int close(int fd) {
    REAL("close", int (*)(int));
    if (about(fd) == NOTHING) return real(fd);
    pthread_mutex_lock(&one_at_a_time);
    note(CLOSED, fd, 0, NULL, 0);
    set_about(fd, NOTHING);
    int result = real(fd);
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);

static ssize_t pwrite_and_note(pwrite_fn real, int fd, const void *bytes, size_t length, off_t offset) {
    if (!is_file(fd)) return real(fd, bytes, length, offset);
    pthread_mutex_lock(&one_at_a_time);
    ssize_t written = -1;
    int error = fault.error;
    if (fails(fault.writes, fd)) {
        if (fault.is_short && length > 1) written = real(fd, bytes, length / 2, offset);
        fault.is_short = 0;
    } else {
        written = real(fd, bytes, length, offset);
        error = errno;
    }
    if (written > 0) note(WRITTEN, fd, (uint64_t)offset, bytes, (size_t)written);
    pthread_mutex_unlock(&one_at_a_time);
    if (written < 0) errno = error;
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    REAL("pwrite", pwrite_fn);
    return pwrite_and_note(real, fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    REAL("pwrite64", pwrite_fn);
    return pwrite_and_note(real, fd, bytes, length, offset);
}

static int cut_and_note(int (*real)(int, off_t), int fd, off_t length) {
    if (!is_file(fd)) return real(fd, length);
    pthread_mutex_lock(&one_at_a_time);
    int result = real(fd, length);
    if (result == 0) note(CUT, fd, (uint64_t)length, NULL, 0);
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

int ftruncate(int fd, off_t length) {
    REAL("ftruncate", int (*)(int, off_t));
    return cut_and_note(real, fd, length);
}

int ftruncate64(int fd, off64_t length) {
    REAL("ftruncate64", int (*)(int, off_t));
    return cut_and_note(real, fd, length);
}

static int sync_and_note(int (*real)(int), int fd) {
    if (!is_file(fd)) return real(fd);
    if (fault.lies) return 0;
    pthread_mutex_lock(&one_at_a_time);
    note(SYNC_BEGUN, fd, 0, NULL, 0);
    int is_faulty = fails(fault.syncs, fd);
    pthread_mutex_unlock(&one_at_a_time);
    /* Not under the lock: what others do meanwhile is not part of what is synced. */
    int result = is_faulty ? -1 : real(fd), error = is_faulty ? fault.error : errno;
    note_alone(result == 0 ? SYNCED : SYNC_FAILED, fd, 0);
    if (result != 0) errno = error;
    return result;
}

int fsync(int fd) {
    REAL("fsync", int (*)(int));
    return sync_and_note(real, fd);
}

int fdatasync(int fd) {
    REAL("fdatasync", int (*)(int));
    return sync_and_note(real, fd);
}

int unlink(const char *path) {
    REAL("unlink", int (*)(const char *));
    enum about file = BOOK;
    while (file < FOLDER && strcmp(path, names[file])) file++;
    if (file == FOLDER) return real(path);
    pthread_mutex_lock(&one_at_a_time);
    int result = real(path);
    if (result == 0) note(REMOVED, -1, file, NULL, 0);
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

/* --- calls that would get past the record --- */

static void must_not_be_a_file(int fd, const char *call) {
    if (is_file(fd)) give_up(call);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    REAL("fallocate64", int (*)(int, int, off64_t, off64_t));
    must_not_be_a_file(fd, "fallocate on the book is not recorded");
    return real(fd, mode, offset, length);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    REAL("mmap64", void *(*)(void *, size_t, int, int, int, off64_t));
    if (protection & PROT_WRITE) must_not_be_a_file(fd, "a writable map of the book is not recorded");
    return real(address, length, protection, flags, fd, offset);
}

/* --- connections --- */

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    REAL("connect", int (*)(int, const struct sockaddr *, socklen_t));
    if (about(fd) == NOTHING && (address->sa_family == AF_INET || address->sa_family == AF_INET6))
        set_about(fd, SOCKET);
    return real(fd, address, length);
}

static void leaving(int fd, const struct iovec *parts, int count) {
    pthread_mutex_lock(&one_at_a_time);
    note_parts(LEAVING, fd, 0, parts, count);
    pthread_mutex_unlock(&one_at_a_time);
}

static ssize_t left(int fd, ssize_t count) {
    int error = errno;
    note_alone(LEFT, fd, count > 0 ? (uint64_t)count : 0);
    errno = error;
    return count;
}

static ssize_t arrived(int fd, const struct iovec *parts, int count, ssize_t length, int flags) {
    int error = errno;
    ssize_t open = length;
    pthread_mutex_lock(&one_at_a_time);
    for (int i = 0; i < count && open > 0 && !(flags & MSG_PEEK); i++) {
        size_t here = (size_t)open < parts[i].iov_len ? (size_t)open : parts[i].iov_len;
        note(ARRIVED, fd, 0, parts[i].iov_base, here);
        open -= (ssize_t)here;
    }
    pthread_mutex_unlock(&one_at_a_time);
    errno = error;
    return length;
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    REAL("send", ssize_t (*)(int, const void *, size_t, int));
    if (about(fd) != SOCKET) return real(fd, bytes, length, flags);
    struct iovec part = {(void *)bytes, length};
    leaving(fd, &part, 1);
    return left(fd, real(fd, bytes, length, flags));
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL("write", ssize_t (*)(int, const void *, size_t));
    must_not_be_a_file(fd, "write on the book is not recorded");
    if (about(fd) != SOCKET) return real(fd, bytes, length);
    struct iovec part = {(void *)bytes, length};
    leaving(fd, &part, 1);
    return left(fd, real(fd, bytes, length));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL("writev", ssize_t (*)(int, const struct iovec *, int));
    must_not_be_a_file(fd, "writev on the book is not recorded");
    if (about(fd) != SOCKET) return real(fd, parts, count);
    leaving(fd, parts, count);
    return left(fd, real(fd, parts, count));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL("sendmsg", ssize_t (*)(int, const struct msghdr *, int));
    if (about(fd) != SOCKET) return real(fd, message, flags);
    leaving(fd, message->msg_iov, (int)message->msg_iovlen);
    return left(fd, real(fd, message, flags));
}

ssize_t recv(int fd, void *bytes, size_t length, int flags) {
    REAL("recv", ssize_t (*)(int, void *, size_t, int));
    ssize_t got = real(fd, bytes, length, flags);
    struct iovec part = {bytes, length};
    return about(fd) == SOCKET ? arrived(fd, &part, 1, got, flags) : got;
}

ssize_t read(int fd, void *bytes, size_t length) {
    REAL("read", ssize_t (*)(int, void *, size_t));
    ssize_t got = real(fd, bytes, length);
    struct iovec part = {bytes, length};
    return about(fd) == SOCKET ? arrived(fd, &part, 1, got, 0) : got;
}

ssize_t readv(int fd, const struct iovec *parts, int count) {
    REAL("readv", ssize_t (*)(int, const struct iovec *, int));
    ssize_t got = real(fd, parts, count);
    return about(fd) == SOCKET ? arrived(fd, parts, count, got, 0) : got;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    REAL("recvmsg", ssize_t (*)(int, struct msghdr *, int));
    ssize_t got = real(fd, message, flags);
    if (about(fd) != SOCKET) return got;
    return arrived(fd, message->msg_iov, (int)message->msg_iovlen, got, flags);
}
