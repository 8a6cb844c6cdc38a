#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

/* A byte of the file stands for a megabyte, and a lock on it is its use: the kernel gives it back
 * when its process ends, however that happens. */

enum { DOMAINS = 16, DOMAIN_MB = 4096 };
static const int64_t addresses = (int64_t)1 << 40; /* where the domains' bytes begin */

static bool lock_byte(int file, int64_t at) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    return fcntl(file, F_OFD_SETLK, &lock) == 0;
}

/* Lock `count` of the `size` bytes from `start` on that nobody holds. */
static bool take(int file, int64_t start, int64_t size, int64_t count) {
    for (int64_t at = start; count > 0 && at < start + size; at++) count -= lock_byte(file, at);
    return count <= 0;
}

int memory_take(const Config *config, int domain) {
    int64_t domains = (config->memory_mb + DOMAIN_MB - 1) / DOMAIN_MB;
    if (!*config->npu) return -2;
    int file = open(config->npu, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) return refuse("npu=%s: %s", config->npu, strerror(errno));
    if (domain + domains <= DOMAINS && take(file, 0, config->npu_mb, config->memory_mb) &&
        take(file, addresses + (int64_t)domain * DOMAIN_MB, domains * DOMAIN_MB,
             config->memory_mb))
        return file;
    close(file);
    log_rknn("failed to malloc npu memory, size: %lld, flags: 0x2, errno: 14, errstr: Bad address",
             (long long)config->memory_mb << 20);
    return -1;
}
