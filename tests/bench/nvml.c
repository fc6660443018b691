/* NVML with two GPUs, of which the second is cut into instances and so tells no utilisation and no energy, as far as pynvml is asked here. */
#include <stdio.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3 };
typedef struct { unsigned int gpu, memory; } utilization;
typedef struct { unsigned long long total, free, used; } memory;

static long devices[2] = {0, 1};
static unsigned long long spent = 1000000;

int nvmlInitWithFlags(unsigned int flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "Success"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) { *device = &devices[index]; return SUCCESS; }
int nvmlDeviceGetName(long *device, char *name, unsigned int length) {
    snprintf(name, length, "Imaginary %ld", *device);
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(long *device, utilization *found) {
    if (*device) return NOT_SUPPORTED;
    *found = (utilization){.gpu = 75, .memory = 10};
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(long *device, memory *found) {
    *found = (memory){.total = 6000000000ull, .free = 3000000000ull, .used = 3000000000ull};
    return SUCCESS;
}
int nvmlDeviceGetTotalEnergyConsumption(long *device, unsigned long long *millijoules) {
    if (*device) return NOT_SUPPORTED;
    *millijoules = spent += 7200; /* 7.2 J each time that it is asked */
    return SUCCESS;
}
