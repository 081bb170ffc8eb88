/* A stand-in for NVIDIA's driver (libcuda.so.1): it writes down which process initialises CUDA, and has no device.
 *
 *   STANDIN_DRIVER_LOG   the file that receives one line, "PID function", per call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_INITIALIZED = 3, NO_DEVICE = 100, NOT_FOUND = 500 };

static void note(const char *function) {
  const char *name = getenv("STANDIN_DRIVER_LOG");
  FILE *log = name ? fopen(name, "a") : 0;
  if (!log) return;
  fprintf(log, "%d %s\n", (int)getpid(), function);
  fclose(log);
}

int cuInit(unsigned flags) { (void)flags; return note("cuInit"), NO_DEVICE; }
int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
static int refuse(void) { return note("another function"), NOT_INITIALIZED; }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
  (void)version, (void)flags;
  *function = (void *)refuse;
  if (!strcmp(name, "cuInit")) *function = (void *)cuInit;
  if (!strcmp(name, "cuDriverGetVersion")) *function = (void *)cuDriverGetVersion;
  if (!strcmp(name, "cuGetProcAddress")) *function = (void *)cuGetProcAddress_v2;
  if (status) *status = SUCCESS;
  return SUCCESS;
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}
int cuGetExportTable(const void **table, const void *id) { (void)table, (void)id; return note("cuGetExportTable"), NOT_FOUND; }
