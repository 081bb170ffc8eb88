/* A stand-in for NVIDIA's management library (libnvidia-ml.so.1): it answers for GPUs that an environment variable
 * describes, so that PyTorch's CUDA build and nvidia-ml-py see a machine that is not there.
 *
 *   STANDIN_GPUS    one GPU per ";": name|uuid|total MiB|used MiB|capability|energy counter 0/1|parent
 *                   A MIG device has the number of its parent, a whole GPU has -1.
 *   STANDIN_ERROR   every initialisation fails with this number of NVML (9: the driver is not loaded).
 *   STANDIN_LOST    once a file of this name exists, every question about a GPU ends in "GPU is lost".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15 };
enum { MOST = 64, TEXT = 96 };

typedef struct {
  char name[TEXT], uuid[TEXT];
  unsigned long long total, used;
  int major, minor, energy, parent;
} Gpu;

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory_v2;

static Gpu gpus[MOST];
static int known = -1;

static void load(void) {
  if (known >= 0) return;
  known = 0;
  const char *described = getenv("STANDIN_GPUS");
  if (!described) return;
  char *rest = strdup(described), *line;
  while ((line = strsep(&rest, ";")) && known < MOST) {
    Gpu *gpu = &gpus[known];
    int found = sscanf(line, "%95[^|]|%95[^|]|%llu|%llu|%d.%d|%d|%d", gpu->name, gpu->uuid, &gpu->total, &gpu->used,
                       &gpu->major, &gpu->minor, &gpu->energy, &gpu->parent);
    if (found != 8) { fprintf(stderr, "stand-in NVML: cannot read the GPU \"%s\"\n", line); exit(70); }
    gpu->total <<= 20;
    gpu->used <<= 20;
    known++;
  }
}

static int lost(void) {
  const char *file = getenv("STANDIN_LOST");
  return file && access(file, F_OK) == 0;
}

static int number_of(const Gpu *gpu) { return (int)(gpu - gpus); }

/* The GPU number `index` among the children of `parent`, or among whole GPUs for -1. */
static Gpu *nth(int parent, unsigned index) {
  load();
  for (int i = 0; i < known; i++)
    if (gpus[i].parent == parent && index-- == 0) return &gpus[i];
  return 0;
}

static unsigned count_of(int parent) {
  unsigned count = 0;
  while (nth(parent, count)) count++;
  return count;
}

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  const char *error = getenv("STANDIN_ERROR");
  load();
  return error ? atoi(error) : SUCCESS;
}
int nvmlInit(void) { return nvmlInitWithFlags(0); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) {
  static char text[TEXT];
  snprintf(text, TEXT, error == GPU_IS_LOST ? "GPU is lost" : "NVML error %d", error);
  return text;
}

static int text_of(const char *text, char *out, unsigned size) { return strncpy(out, text, size), SUCCESS; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { return text_of("580.95.05", out, size); }
int nvmlSystemGetCudaDriverVersion(int *version) { return *version = 13000, SUCCESS; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }

int nvmlDeviceGetCount_v2(unsigned *count) { return *count = count_of(-1), SUCCESS; }
int nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

static int handle_of(Gpu *gpu, void **handle) {
  if (!gpu) return NOT_FOUND;
  if (lost()) return GPU_IS_LOST;
  return *handle = gpu, SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  return index < count_of(-1) ? handle_of(nth(-1, index), handle) : INVALID_ARGUMENT;
}
int nvmlDeviceGetHandleByIndex(unsigned index, void **handle) { return nvmlDeviceGetHandleByIndex_v2(index, handle); }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
  load();
  for (int i = 0; i < known; i++)
    if (!strcmp(gpus[i].uuid, uuid)) return handle_of(&gpus[i], handle);
  return NOT_FOUND;
}
int nvmlDeviceGetUUID(void *gpu, char *out, unsigned size) {
  return lost() ? GPU_IS_LOST : text_of(((Gpu *)gpu)->uuid, out, size);
}
int nvmlDeviceGetName(void *gpu, char *out, unsigned size) {
  return lost() ? GPU_IS_LOST : text_of(((Gpu *)gpu)->name, out, size);
}
int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) {
  if (lost()) return GPU_IS_LOST;
  *major = ((Gpu *)gpu)->major;
  return *minor = ((Gpu *)gpu)->minor, SUCCESS;
}

/* A GPU of 0 MiB shares the host's memory and does not tell its own, as a DGX Spark. */
int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
  Gpu *gpu = handle;
  if (lost()) return GPU_IS_LOST;
  if (!gpu->total) return NOT_SUPPORTED;
  *memory = (Memory){gpu->total, gpu->total - gpu->used, gpu->used};
  return SUCCESS;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, Memory_v2 *memory) {
  Gpu *gpu = handle;
  if (lost()) return GPU_IS_LOST;
  if (!gpu->total) return NOT_SUPPORTED;
  *memory = (Memory_v2){memory->version, gpu->total, 0, gpu->total - gpu->used, gpu->used};
  return SUCCESS;
}

int nvmlDeviceGetMigMode(void *gpu, unsigned *current, unsigned *pending) {
  *current = *pending = count_of(number_of(gpu)) > 0;
  return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(void *gpu, unsigned *count) { return *count = count_of(number_of(gpu)), SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *gpu, unsigned index, void **handle) {
  return handle_of(nth(number_of(gpu), index), handle);
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *device, void **handle) {
  int parent = ((Gpu *)device)->parent;
  return handle_of(parent < 0 ? 0 : &gpus[parent], handle);
}
int nvmlDeviceIsMigDeviceHandle(void *gpu, unsigned *is) { return *is = ((Gpu *)gpu)->parent >= 0, SUCCESS; }

/* 100 watts, in millijoules since the start of the machine. A MIG device has no counter, as on hardware. */
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, unsigned long long *millijoules) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (lost()) return GPU_IS_LOST;
  if (!((Gpu *)gpu)->energy || ((Gpu *)gpu)->parent >= 0) return NOT_SUPPORTED;
  *millijoules = (unsigned long long)now.tv_sec * 100000 + now.tv_nsec / 10000;
  return SUCCESS;
}
int nvmlDeviceGetPowerUsage(void *gpu, unsigned *milliwatts) {
  if (lost()) return GPU_IS_LOST;
  return ((Gpu *)gpu)->parent >= 0 ? NOT_SUPPORTED : (*milliwatts = 100000, SUCCESS);
}
