/* NVIDIA's driver without a GPU: the functions that share memory between processes, over POSIX shared memory.
 *
 * As with the real one: nothing works before cuInit or without a current context, which is a thread's own; a handle means
 * something in another process; and a copy has happened only when its stream was synchronised. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, ILLEGAL_ADDRESS = 700 };
enum { DEVICES = 2, MEMORIES = 1024, COPIES = 64, DEPTH = 16 };
typedef struct { char name[64]; } Handle;
typedef struct { uintptr_t at; size_t bytes; char name[64]; } Memory;
typedef struct { void *to; const void *from; size_t bytes; void *stream; } Copy;

static int initialised, made, fail_in = -1;
static int contexts[DEVICES], streams[DEVICES];
static Memory memories[MEMORIES];
static Copy copies[COPIES];
static __thread void *stack[DEPTH];
static __thread int depth;

/* For tests: the call after so many more fails, as after a bad memory access; -1 for none. */
void fake_fail_in(int calls) { fail_in = calls; }
int fake_open_memories(void) {
    int count = 0;
    for (int i = 0; i < MEMORIES; i++) count += memories[i].bytes != 0;
    return count;
}

static int refused(int needs_context) {
    if (fail_in >= 0 && fail_in-- == 0) return ILLEGAL_ADDRESS;
    if (!initialised) return NOT_INITIALIZED;
    return needs_context && depth == 0 ? INVALID_CONTEXT : SUCCESS;
}
#define REFUSE(needs_context) do { int why = refused(needs_context); if (why) return why; } while (0)

static Memory *memory_at(uintptr_t at, size_t bytes) {
    for (int i = 0; i < MEMORIES; i++) {
        Memory *memory = &memories[i];
        if (memory->bytes && at >= memory->at && at + bytes <= memory->at + memory->bytes) return memory;
    }
    return NULL;
}

static int map(const char *name, int flags, size_t bytes, uint64_t *address) {
    int file = shm_open(name, flags, 0600);
    if (file < 0) return INVALID_VALUE;
    struct stat found;
    if ((flags & O_CREAT && ftruncate(file, (off_t)bytes)) || fstat(file, &found)) { close(file); return INVALID_VALUE; }
    void *at = mmap(NULL, (size_t)found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    for (int i = 0; at != MAP_FAILED && i < MEMORIES; i++) {
        if (memories[i].bytes) continue;
        memories[i].at = (uintptr_t)at;
        memories[i].bytes = (size_t)found.st_size;
        snprintf(memories[i].name, sizeof memories[i].name, "%s", name);
        *address = (uint64_t)(uintptr_t)at;
        return SUCCESS;
    }
    return INVALID_VALUE;
}

static int unmap(uint64_t address, int for_good) {
    Memory *memory = memory_at((uintptr_t)address, 1);
    if (!memory || memory->at != (uintptr_t)address) return INVALID_VALUE;
    munmap((void *)memory->at, memory->bytes);
    if (for_good) shm_unlink(memory->name);
    memory->bytes = 0;
    return SUCCESS;
}

static int later(void *to, const void *from, size_t bytes, void *stream) {
    for (int i = 0; i < COPIES; i++) {
        if (copies[i].to) continue;
        copies[i] = (Copy){to, from, bytes, stream};
        return SUCCESS;
    }
    return INVALID_VALUE;
}

int cuInit(unsigned flags) {
    initialised = 1;
    REFUSE(0);
    return flags ? INVALID_VALUE : SUCCESS;
}

int cuGetErrorName(int error, const char **name) {
    *name = error == INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE"
          : error == NOT_INITIALIZED ? "CUDA_ERROR_NOT_INITIALIZED"
          : error == INVALID_DEVICE ? "CUDA_ERROR_INVALID_DEVICE"
          : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
          : error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : NULL;
    return *name ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGet(int *device, int number) {
    REFUSE(0);
    *device = number;
    return number < 0 || number >= DEVICES ? INVALID_DEVICE : SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { REFUSE(0); *context = &contexts[device]; return SUCCESS; }

int cuCtxPushCurrent_v2(void *context) {
    REFUSE(0);
    if (depth == DEPTH) return INVALID_VALUE;
    stack[depth++] = context;
    return SUCCESS;
}

int cuCtxPopCurrent_v2(void **context) {
    if (depth == 0) return INVALID_CONTEXT;
    *context = stack[--depth];
    return SUCCESS;
}

int cuCtxGetCurrent(void **context) {
    *context = depth ? stack[depth - 1] : NULL;
    return SUCCESS;
}

int cuStreamCreate(void **stream, unsigned flags) {
    REFUSE(1);
    *stream = &streams[(int *)stack[depth - 1] - contexts];
    return flags > 1 ? INVALID_VALUE : SUCCESS;
}

int cuStreamSynchronize(void *stream) {
    int why = refused(1);
    for (int i = 0; i < COPIES; i++) {
        if (!copies[i].to || copies[i].stream != stream) continue;
        if (!why) memcpy(copies[i].to, copies[i].from, copies[i].bytes);
        copies[i].to = NULL;
    }
    return why;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    REFUSE(1);
    char name[64];
    snprintf(name, sizeof name, "/headway_cuda_%d_%d", (int)getpid(), made++);
    return map(name, O_RDWR | O_CREAT | O_EXCL, bytes, address);
}

int cuMemFree_v2(uint64_t address) { REFUSE(1); return unmap(address, 1); }

int cuIpcGetMemHandle(Handle *handle, uint64_t address) {
    REFUSE(1);
    Memory *memory = memory_at((uintptr_t)address, 1);
    if (!memory) return INVALID_VALUE;
    memcpy(handle->name, memory->name, sizeof handle->name);
    return SUCCESS;
}

int cuIpcOpenMemHandle_v2(uint64_t *address, Handle handle, unsigned flags) {
    REFUSE(1);
    if (flags != 1 || memchr(handle.name, 0, sizeof handle.name) == NULL) return INVALID_VALUE;
    return map(handle.name, O_RDWR, 0, address);
}

int cuIpcCloseMemHandle(uint64_t address) { REFUSE(1); return unmap(address, 0); }

int cuMemGetAddressRange_v2(uint64_t *start, size_t *bytes, uint64_t address) {
    REFUSE(1);
    Memory *memory = memory_at((uintptr_t)address, 1);
    if (!memory) return INVALID_VALUE;
    *start = memory->at;
    *bytes = memory->bytes;
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    REFUSE(1);
    if (!memory_at((uintptr_t)from, bytes)) return INVALID_VALUE;
    return later(to, (const void *)(uintptr_t)from, bytes, stream);
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    REFUSE(1);
    if (!memory_at((uintptr_t)to, bytes)) return INVALID_VALUE;
    return later((void *)(uintptr_t)to, from, bytes, stream);
}
