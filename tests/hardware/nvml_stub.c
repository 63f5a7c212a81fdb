/* A small libnvidia-ml for tests: two or more cards that answer what our reader asks.
 *
 * STUB_CARDS   number of cards (2)
 * STUB_INIT    error code of nvmlInit (0)
 * STUB_FAIL    comma separated names of calls that answer "not supported"
 * STUB_LOST    position of a card that answers "GPU is lost" to everything but its handle
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB (1024ull * 1024ull * 1024ull)
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define LOST 15

typedef int result_t;
typedef struct card { int index; } card_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;

static card_t cards[16];

static int setting(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

static int count(void) { return setting("STUB_CARDS", 2); }

static result_t answer(const card_t *card, const char *call) {
    const char *fail = getenv("STUB_FAIL");
    if (card->index == setting("STUB_LOST", -1)) return LOST;
    return fail && strstr(fail, call) ? NOT_SUPPORTED : 0;
}

result_t nvmlInitWithFlags(unsigned int flags) { (void)flags; return setting("STUB_INIT", 0); }
result_t nvmlInit_v2(void) { return setting("STUB_INIT", 0); }
result_t nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(result_t code) { return code ? "stub error" : "success"; }

result_t nvmlDeviceGetCount_v2(unsigned int *number) { *number = (unsigned int)count(); return 0; }

result_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, card_t **card) {
    if ((int)index >= count()) return INVALID_ARGUMENT;
    cards[index].index = (int)index;
    *card = &cards[index];
    return 0;
}

result_t nvmlDeviceGetHandleByUUID(const char *uuid, card_t **card) {
    char own[64];
    for (int index = 0; index < count(); index++) {
        snprintf(own, sizeof own, "GPU-%08d-stub", index);
        if (!strcmp(own, uuid)) return nvmlDeviceGetHandleByIndex_v2((unsigned int)index, card);
    }
    return NOT_FOUND;
}

result_t nvmlDeviceGetName(card_t *card, char *name, unsigned int length) {
    snprintf(name, length, "Stub Card %d", card->index);
    return answer(card, "name");
}

result_t nvmlDeviceGetUUID(card_t *card, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-%08d-stub", card->index);
    return answer(card, "uuid");
}

result_t nvmlDeviceGetMemoryInfo(card_t *card, memory_t *memory) {
    memory->total = 24 * GIB;
    memory->used = (unsigned long long)(card->index + 1) * GIB;
    memory->free = memory->total - memory->used;
    return answer(card, "memory");
}

/* Card 0 is old: bfloat16 comes with 8.0. */
result_t nvmlDeviceGetCudaComputeCapability(card_t *card, int *major, int *minor) {
    *major = card->index ? 8 : 7;
    *minor = card->index ? 0 : 5;
    return answer(card, "capability");
}

result_t nvmlDeviceGetUtilizationRates(card_t *card, rates_t *rates) {
    rates->gpu = 40u + (unsigned int)card->index;
    rates->memory = 10;
    return answer(card, "rates");
}

result_t nvmlDeviceGetTemperature(card_t *card, int sensor, unsigned int *celsius) {
    (void)sensor;
    *celsius = 60u + (unsigned int)card->index;
    return answer(card, "temperature");
}


result_t nvmlDeviceGetPowerUsage(card_t *card, unsigned int *milliwatts) {
    *milliwatts = 250500;
    return answer(card, "power");
}
