/* A stand-in for NVIDIA's libnvidia-ml.so.1, for machines without a GPU.
 *
 * The ordinary values were recorded by real cards, as `nvidia-smi -q -x` printed them, and are kept
 * in the test data of Telegraf's nvidia_smi plugin (influxdata/telegraf, MIT licence):
 *   plugins/inputs/nvidia_smi/testdata/a100-sxm4-v12.xml   A100-SXM4-80GB in MIG mode, driver, CUDA
 *   plugins/inputs/nvidia_smi/testdata/tesla-t4.xml        Tesla T4
 *   plugins/inputs/nvidia_smi/testdata/rtx-3080-v13.xml    GeForce RTX 3080
 * Compute capabilities are those of NVIDIA's public table. Made up are: the names and UUIDs of the
 * MIG slices (nvidia-smi prints neither there), and the energy counter, which grows by the recorded
 * power. Where a card printed N/A, its function answers NVML_ERROR_NOT_SUPPORTED here.
 *
 * What a test may set:
 *   STANDIN_CARDS=1,2        the cards, in this order (0 A100, 1 T4, 2 RTX 3080); default 1,2
 *   STANDIN_FAIL=name=15,..  functions that fail, with the NVML error
 *   STANDIN_LIMITS=1         numbers at the end of their range
 *   STANDIN_REASONS=0,20,4   bits (hexadecimal) of one call each, over and over
 *   STANDIN_COMPUTE=path     a file of process ids that compute, read at each call
 *   STANDIN_GRAPHICS=path    the same of processes that draw
 *   STANDIN_USED=path        a file with the MiB in use on each card, read at each call
 * Functions that are to be missing are hidden by the linker.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { NONE = -1, MIB = 1024 * 1024, MOST = 16 };

typedef struct {
    const char *name, *uuid;
    int major, minor;
    unsigned long long total_mib, used_mib;
    int link_generation, link_width, lanes, ecc, mig;
    int limit_mw, power_mw, temperature, sm_mhz, memory_mhz, most_sm_mhz, most_memory_mhz, busy;
    const char *const *slice_names;
    const char *const *slice_uuids;
} Card;

static const char *const A100_SLICES[] = {
    "NVIDIA A100-SXM4-80GB MIG 1g.20gb", "NVIDIA A100-SXM4-80GB MIG 1g.20gb",
    "NVIDIA A100-SXM4-80GB MIG 1g.20gb", "NVIDIA A100-SXM4-80GB MIG 1g.20gb", NULL,
};
static const char *const A100_SLICE_UUIDS[] = {
    "MIG-11111111-aaaa-5000-8000-000000000000", "MIG-22222222-aaaa-5000-8000-000000000000",
    "MIG-33333333-aaaa-5000-8000-000000000000", "MIG-44444444-aaaa-5000-8000-000000000000", NULL,
};
enum { SLICES = 4, MOST_SLICES = 7, FIRST_GPU_INSTANCE = 3, SLICE_MIB = 19968, SLICE_USED_MIB = 12 };

/* used_mib is used and reserved together, as the first version of the memory structure has it */
static const Card CARDS[] = {
    {"NVIDIA A100-SXM4-80GB", "GPU-513536b6-7d19-9063-b049-1e69664bb298", 8, 0, 81920, 50 + 869, 4,
     16, 16, 1, 1, 500000, 67030, 27, 1275, 1593, 1410, 1593, NONE, A100_SLICES, A100_SLICE_UUIDS},
    {"Tesla T4", "GPU-d37e67a5-91dd-3774-a5cb-99096249601a", 7, 5, 15360, 1032 + 388, 3, 16, 8,
     1, NONE, 70000, 26780, 40, 585, 5000, 1590, 5001, 0, NULL, NULL},
    {"NVIDIA GeForce RTX 3080", "GPU-19d6d965-2acc-f646-00f8-4c76979aabb4", 8, 6, 10240, 9184 + 397,
     4, 16, 16, NONE, NONE, 320000, 139620, 27, 1950, 9251, 2100, 9501, 65, NULL, NULL},
};
enum { COUNT = sizeof CARDS / sizeof *CARDS };
static const char DRIVER[] = "535.54.03";
enum { CUDA = 12020 };

/* A handle is a card's address, or a slice's name's address in A100_SLICES. */
static int selected[MOST], selected_count;
static int initialised;

static int failure(const char *function) {
    if (!initialised && strcmp(function, "nvmlInitWithFlags") != 0) return 1;
    const char *list = getenv("STANDIN_FAIL");
    size_t length = strlen(function);
    for (const char *at = list ? list : ""; *at; at += strcspn(at, ","), at += *at == ',')
        if (strncmp(at, function, length) == 0 && at[length] == '=') return atoi(at + length + 1);
    return SUCCESS;
}
#define MAY_FAIL do { int code = failure(__func__); if (code) return code; } while (0)

static int at_limits(void) { return getenv("STANDIN_LIMITS") != NULL; }

static int slice_of(void *handle) {
    const char *const *name = handle;
    return name >= A100_SLICES && name < A100_SLICES + SLICES ? (int)(name - A100_SLICES) : NONE;
}

static const Card *card_of(void *handle) {
    return slice_of(handle) >= 0 ? &CARDS[0] : (const Card *)handle;
}

static int give(unsigned *answer, int value) {
    if (value == NONE && !at_limits()) return NOT_SUPPORTED;
    *answer = at_limits() ? UINT_MAX : (unsigned)value;
    return SUCCESS;
}

static int give_text(char *answer, unsigned size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(answer, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    MAY_FAIL;
    const char *list = getenv("STANDIN_CARDS");
    selected_count = 0;
    for (const char *at = list ? list : "1,2"; *at && selected_count < MOST;) {
        selected[selected_count++] = atoi(at) % COUNT;
        at += strcspn(at, ",");
        at += *at == ',';
    }
    initialised = 1;
    return SUCCESS;
}

int nvmlShutdown(void) {
    MAY_FAIL;
    initialised = 0;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "an error of the stand-in";
}

int nvmlSystemGetDriverVersion(char *answer, unsigned size) {
    MAY_FAIL;
    return give_text(answer, size, DRIVER);
}

int nvmlSystemGetCudaDriverVersion(int *answer) {
    MAY_FAIL;
    *answer = CUDA;
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *answer) {
    MAY_FAIL;
    *answer = (unsigned)selected_count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    MAY_FAIL;
    if (index >= (unsigned)selected_count) return INVALID_ARGUMENT;
    *handle = (void *)&CARDS[selected[index]];
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *answer, unsigned size) {
    MAY_FAIL;
    int slice = slice_of(handle);
    return give_text(answer, size, slice >= 0 ? A100_SLICES[slice] : card_of(handle)->name);
}

int nvmlDeviceGetUUID(void *handle, char *answer, unsigned size) {
    MAY_FAIL;
    int slice = slice_of(handle);
    return give_text(answer, size, slice >= 0 ? A100_SLICE_UUIDS[slice] : card_of(handle)->uuid);
}

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *answer) {
    MAY_FAIL;
    int slice = slice_of(handle) >= 0;
    unsigned long long total = slice ? SLICE_MIB : card_of(handle)->total_mib;
    unsigned long long used = slice ? SLICE_USED_MIB : card_of(handle)->used_mib;
    FILE *told = getenv("STANDIN_USED") ? fopen(getenv("STANDIN_USED"), "r") : NULL;
    if (told != NULL) {
        if (fscanf(told, "%llu", &used) != 1) used = 0;
        fclose(told);
    }
    answer[0] = at_limits() ? ULLONG_MAX : total * MIB;
    answer[1] = at_limits() ? 0 : (total - used) * MIB;
    answer[2] = at_limits() ? ULLONG_MAX : used * MIB;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    MAY_FAIL;
    *major = card_of(handle)->major;
    *minor = card_of(handle)->minor;
    return SUCCESS;
}

int nvmlDeviceGetMaxPcieLinkGeneration(void *handle, unsigned *answer) {
    MAY_FAIL;
    return give(answer, card_of(handle)->link_generation);
}

int nvmlDeviceGetMaxPcieLinkWidth(void *handle, unsigned *answer) {
    MAY_FAIL;
    return give(answer, card_of(handle)->link_width);
}

int nvmlDeviceGetCurrPcieLinkWidth(void *handle, unsigned *answer) {
    MAY_FAIL;
    return give(answer, card_of(handle)->lanes);
}

int nvmlDeviceGetEccMode(void *handle, unsigned *current, unsigned *pending) {
    MAY_FAIL;
    int ecc = card_of(handle)->ecc;
    if (ecc == NONE) return NOT_SUPPORTED;
    *current = *pending = (unsigned)ecc;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    MAY_FAIL;
    int mig = card_of(handle)->mig;
    if (mig == NONE) return NOT_SUPPORTED;
    *current = *pending = (unsigned)mig;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *answer) {
    MAY_FAIL;
    return give(answer, card_of(handle)->slice_names ? MOST_SLICES : 0);
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **slice) {
    MAY_FAIL;
    if (!card_of(handle)->slice_names || index >= SLICES) return NOT_FOUND;
    *slice = (void *)&A100_SLICES[index];
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *answer) {
    MAY_FAIL;
    if (slice_of(handle) < 0) return INVALID_ARGUMENT;
    return give(answer, FIRST_GPU_INSTANCE + slice_of(handle));
}

int nvmlDeviceGetComputeInstanceId(void *handle, unsigned *answer) {
    MAY_FAIL;
    if (slice_of(handle) < 0) return INVALID_ARGUMENT;
    return give(answer, 0);
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *answer) {
    MAY_FAIL;
    return give(answer, card_of(handle)->limit_mw);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *answer) {
    MAY_FAIL;
    return give(answer, card_of(handle)->power_mw);
}

enum { CLOCK_SM = 1, CLOCK_MEMORY = 2 };

int nvmlDeviceGetMaxClockInfo(void *handle, int clock, unsigned *answer) {
    MAY_FAIL;
    if (clock != CLOCK_SM && clock != CLOCK_MEMORY) return INVALID_ARGUMENT;
    const Card *card = card_of(handle);
    return give(answer, clock == CLOCK_SM ? card->most_sm_mhz : card->most_memory_mhz);
}

int nvmlDeviceGetClockInfo(void *handle, int clock, unsigned *answer) {
    MAY_FAIL;
    if (clock != CLOCK_SM && clock != CLOCK_MEMORY) return INVALID_ARGUMENT;
    const Card *card = card_of(handle);
    return give(answer, clock == CLOCK_SM ? card->sm_mhz : card->memory_mhz);
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *answer) {
    MAY_FAIL;
    if (sensor != 0) return INVALID_ARGUMENT;
    return give(answer, card_of(handle)->temperature);
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned *answer) {
    MAY_FAIL;
    if (card_of(handle)->busy == NONE) return NOT_SUPPORTED;
    answer[0] = answer[1] = at_limits() ? UINT_MAX : (unsigned)card_of(handle)->busy;
    return SUCCESS;
}

static int reasons(unsigned long long *answer) {
    static int calls;
    const char *list = getenv("STANDIN_REASONS");
    const char *at = list = list ? list : "0";
    for (int place = 0; place < calls; place++) {
        const char *comma = strchr(at, ',');
        at = comma ? comma + 1 : list;
    }
    calls++;
    *answer = at_limits() ? ULLONG_MAX : strtoull(at, NULL, 16);
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *answer) {
    (void)handle;
    MAY_FAIL;
    return reasons(answer);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *answer) {
    (void)handle;
    MAY_FAIL;
    return reasons(answer);
}

/* Wall time, so that two readings differ by the recorded power x the seconds between them. */
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *answer) {
    MAY_FAIL;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)now.tv_sec + now.tv_nsec / 1e9;
    *answer = at_limits() ? ULLONG_MAX
                          : (unsigned long long)(seconds * card_of(handle)->power_mw);
    return SUCCESS;
}

typedef struct {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance, compute_instance;
} Process;

static int processes(const char *variable, unsigned *count, Process *answer) {
    const char *path = getenv(variable);
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned found = 0, room = *count, pid;
    while (file && fscanf(file, "%u", &pid) == 1) {
        if (answer && found < room) answer[found] = (Process){pid, ULLONG_MAX, UINT_MAX, UINT_MAX};
        found++;
    }
    if (file) fclose(file);
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *answer) {
    (void)handle;
    MAY_FAIL;
    return processes("STANDIN_COMPUTE", count, answer);
}

int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, Process *answer) {
    (void)handle;
    MAY_FAIL;
    return processes("STANDIN_COMPUTE", count, answer);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, Process *answer) {
    (void)handle;
    MAY_FAIL;
    return processes("STANDIN_GRAPHICS", count, answer);
}
