/* A small libnvidia-ml for tests: cards that answer what our reader, nvitop and gpustat ask.
 *
 * STUB_CARDS    number of cards (8)
 * STUB_INIT     error code of nvmlInit (0)
 * STUB_FAIL     comma separated names of calls that answer "not supported"
 * STUB_LOST     position of a card that answers "GPU is lost" to everything but its handle
 * STUB_HANDLE   position:code of a card whose handle is refused
 * STUB_MIG      position of a card in MIG mode: slots 0, 2 and 3 of 7 hold a slice
 * STUB_SLOTS    number of slots of that card (7); 0 is MIG mode without slices
 * STUB_NAME     name of every card (Stub Card)
 * STUB_MIXED    1: every card has another name
 * STUB_MEMORY   "zero": total is 0
 * STUB_OLD      1: a driver without the newest form of the calls
 * STUB_REASONS  bits that say why the clock is held back (0)
 * STUB_LINKS    switch: NVLinks to a switch; mesh: two to each card; else PCIe (PCIe)
 * STUB_PEERS    status of peer access (0, OK)
 * STUB_PIDS     comma separated pids, one per card, that hold memory
 * STUB_ATS      1: host and card share addresses
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (1024ull * 1024ull)
#define GIB (1024ull * MIB)
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define FUNCTION_NOT_FOUND 13
#define LOST 15
#define MOST 64
#define NVLINKS 18

typedef int result_t;
typedef unsigned int uint;
typedef unsigned long long ull;
/* slot is -1 for a whole card */
typedef struct { int index, slot; } card_t;
typedef struct { ull total, free, used; } memory_t;
typedef struct { uint version; ull total, reserved, free, used; } memory_v2_t;
typedef struct { uint gpu, memory; } rates_t;
typedef struct {
    char legacy[16];
    uint domain, bus, device, id, subsystem;
    char bus_id[32];
} pci_t;
typedef struct { uint pid; ull used; uint instance, compute; } process_t;
typedef struct {
    uint processors, copy, decoder, encoder, jpeg, ofa, instance_slices, compute_slices;
    ull memory_mib;
} attributes_t;
typedef struct { uint version, value; } mode_t_;

static card_t cards[MOST], slices[MOST];

static int setting(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

static int is_set(const char *name, const char *wanted) {
    const char *value = getenv(name);
    return value && !strcmp(value, wanted);
}

static int count(void) { return setting("STUB_CARDS", 8); }

static int is_split(const card_t *card) {
    return card->slot < 0 && card->index == setting("STUB_MIG", -1);
}

static result_t answer(const card_t *card, const char *call) {
    const char *fail = getenv("STUB_FAIL");
    if (card->index == setting("STUB_LOST", -1)) return LOST;
    return fail && strstr(fail, call) ? NOT_SUPPORTED : 0;
}

static result_t newest(const card_t *card, const char *call) {
    return setting("STUB_OLD", 0) ? FUNCTION_NOT_FOUND : answer(card, call);
}

static void name_uuid(const card_t *card, char *uuid, uint length) {
    if (card->slot < 0) snprintf(uuid, length, "GPU-%08x-0000-4000-8000-000000000000", card->index);
    else snprintf(uuid, length, "MIG-%08x-0000-4000-8000-00000000000%d", card->index, card->slot);
}

result_t nvmlInitWithFlags(uint flags) { (void)flags; return setting("STUB_INIT", 0); }
result_t nvmlInit_v2(void) { return setting("STUB_INIT", 0); }
result_t nvmlInit(void) { return setting("STUB_INIT", 0); }
result_t nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(result_t code) { return code ? "stub error" : "success"; }

result_t nvmlSystemGetDriverVersion(char *text, uint length) {
    snprintf(text, length, "590.48.01");
    return 0;
}

result_t nvmlSystemGetNVMLVersion(char *text, uint length) {
    snprintf(text, length, "13.590.48.01");
    return 0;
}

result_t nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13010; return 0; }
result_t nvmlSystemGetCudaDriverVersion(int *version) { *version = 13010; return 0; }

result_t nvmlSystemGetProcessName(uint pid, char *name, uint length) {
    if (getenv("STUB_PIDS")) return NOT_FOUND;
    snprintf(name, length, "/usr/bin/trainer %u", pid);
    return 0;
}

result_t nvmlDeviceGetCount_v2(uint *number) { *number = (uint)count(); return 0; }
result_t nvmlDeviceGetCount(uint *number) { *number = (uint)count(); return 0; }

result_t nvmlDeviceGetHandleByIndex_v2(uint index, card_t **card) {
    const char *refused = getenv("STUB_HANDLE");
    if ((int)index >= count()) return INVALID_ARGUMENT;
    if (refused && atoi(refused) == (int)index) return atoi(strchr(refused, ':') + 1);
    cards[index].index = (int)index;
    cards[index].slot = -1;
    *card = &cards[index];
    return 0;
}

result_t nvmlDeviceGetHandleByIndex(uint index, card_t **card) {
    return nvmlDeviceGetHandleByIndex_v2(index, card);
}

result_t nvmlDeviceGetMaxMigDeviceCount(card_t *card, uint *number) {
    *number = is_split(card) ? (uint)setting("STUB_SLOTS", 7) : 0;
    return answer(card, "slots");
}

result_t nvmlDeviceGetMigDeviceHandleByIndex(card_t *card, uint slot, card_t **piece) {
    if (!is_split(card)) return NOT_SUPPORTED;
    if (slot != 0 && slot != 2 && slot != 3) return NOT_FOUND;
    slices[slot].index = card->index;
    slices[slot].slot = (int)slot;
    *piece = &slices[slot];
    return answer(card, "slots");
}

result_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(card_t *piece, card_t **card) {
    return nvmlDeviceGetHandleByIndex_v2((uint)piece->index, card);
}

result_t nvmlDeviceIsMigDeviceHandle(card_t *card, uint *is_slice) {
    *is_slice = card->slot >= 0;
    return 0;
}

result_t nvmlDeviceGetHandleByUUID(const char *uuid, card_t **card) {
    char own[96];
    for (uint index = 0; (int)index < count(); index++) {
        result_t code = nvmlDeviceGetHandleByIndex_v2(index, card);
        if (code) {
            card_t refused = {(int)index, -1};
            name_uuid(&refused, own, sizeof own);
            if (!strcmp(own, uuid)) return code;
            continue;
        }
        name_uuid(*card, own, sizeof own);
        if (!strcmp(own, uuid)) return 0;
        card_t *whole = *card;
        for (uint slot = 0; slot < 7; slot++) {
            if (nvmlDeviceGetMigDeviceHandleByIndex(whole, slot, card)) continue;
            name_uuid(*card, own, sizeof own);
            if (!strcmp(own, uuid)) return 0;
        }
    }
    return NOT_FOUND;
}

result_t nvmlDeviceGetIndex(card_t *card, uint *index) { *index = (uint)card->index; return 0; }
result_t nvmlDeviceGetMinorNumber(card_t *card, uint *minor) { *minor = (uint)card->index; return 0; }

result_t nvmlDeviceGetName(card_t *card, char *name, uint length) {
    const char *given = getenv("STUB_NAME");
    const char *profile = card->slot == 0 ? " MIG 3g.40gb" : card->slot > 0 ? " MIG 1g.10gb" : "";
    if (setting("STUB_OLD", 0)) profile = "";
    if (setting("STUB_MIXED", 0)) snprintf(name, length, "Stub Card %d%s", card->index, profile);
    else snprintf(name, length, "%s%s", given ? given : "Stub Card", profile);
    return answer(card, "name");
}

result_t nvmlDeviceGetUUID(card_t *card, char *uuid, uint length) {
    name_uuid(card, uuid, length);
    return answer(card, "uuid");
}

result_t nvmlDeviceGetPciInfo_v3(card_t *card, pci_t *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = 0xf0 + (uint)card->index;
    snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", pci->bus);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    return answer(card, "address");
}

result_t nvmlDeviceGetMigMode(card_t *card, uint *now, uint *next) {
    *now = *next = (uint)is_split(card);
    return card->slot < 0 ? answer(card, "mig") : NOT_SUPPORTED;
}

result_t nvmlDeviceGetGpuInstanceId(card_t *card, uint *id) {
    *id = (uint)card->slot + 1;
    return card->slot < 0 ? NOT_SUPPORTED : 0;
}

result_t nvmlDeviceGetComputeInstanceId(card_t *card, uint *id) {
    *id = 0;
    return card->slot < 0 ? NOT_SUPPORTED : 0;
}

result_t nvmlDeviceGetAttributes_v2(card_t *card, attributes_t *attributes) {
    memset(attributes, 0, sizeof *attributes);
    attributes->instance_slices = card->slot == 0 ? 3 : 1;
    attributes->compute_slices = 1;
    attributes->memory_mib = card->slot == 0 ? 40448 : 9984;
    return card->slot < 0 ? NOT_SUPPORTED : 0;
}

/* Total, used and reserved bytes. */
static memory_v2_t memory_of(const card_t *card) {
    memory_v2_t memory = {0, 80 * GIB, 512 * MIB, 0, (ull)(card->index + 1) * GIB};
    if (card->slot >= 0) {
        memory.total = (card->slot == 0 ? 40448 : 9984) * MIB;
        memory.reserved = 0;
        memory.used = 32 * MIB;
    }
    memory.free = memory.total - memory.reserved - memory.used;
    if (is_set("STUB_MEMORY", "zero")) memset(&memory, 0, sizeof memory);
    return memory;
}

result_t nvmlDeviceGetMemoryInfo_v2(card_t *card, memory_v2_t *memory) {
    *memory = memory_of(card);
    return newest(card, "memory");
}

result_t nvmlDeviceGetMemoryInfo(card_t *card, memory_t *memory) {
    memory_v2_t all = memory_of(card);
    memory->total = all.total;
    memory->free = all.free;
    memory->used = all.total - all.free;
    return answer(card, "memory");
}

result_t nvmlDeviceGetBAR1MemoryInfo(card_t *card, memory_t *memory) {
    memset(memory, 0, sizeof *memory);
    return answer(card, "bar");
}

/* Card 0 is old: bfloat16 comes with 8.0. */
result_t nvmlDeviceGetCudaComputeCapability(card_t *card, int *major, int *minor) {
    *major = card->index ? 9 : 7;
    *minor = card->index ? 0 : 5;
    return answer(card, "capability");
}

result_t nvmlDeviceGetAddressingMode(card_t *card, mode_t_ *mode) {
    mode->value = setting("STUB_ATS", 0) ? 2 : 0;
    return newest(card, "addressing");
}

result_t nvmlDeviceGetMaxPcieLinkGeneration(card_t *card, uint *generation) {
    *generation = 5;
    return answer(card, "pcie");
}

result_t nvmlDeviceGetMaxPcieLinkWidth(card_t *card, uint *width) { *width = 16; return answer(card, "pcie"); }

/* Nodes 0 and 1, half of the cards each. */
result_t nvmlDeviceGetMemoryAffinity(card_t *card, uint words, unsigned long *nodes, uint scope) {
    (void)scope;
    memset(nodes, 0, words * sizeof *nodes);
    nodes[0] = card->index * 2 < count() ? 1 : 2;
    return answer(card, "affinity");
}

result_t nvmlDeviceGetUtilizationRates(card_t *card, rates_t *rates) {
    rates->gpu = 40u + (uint)card->index;
    rates->memory = 10;
    return card->slot < 0 && !is_split(card) ? answer(card, "rates") : NOT_SUPPORTED;
}

result_t nvmlDeviceGetTemperature(card_t *card, int sensor, uint *celsius) {
    (void)sensor;
    *celsius = 60u + (uint)card->index;
    return card->slot < 0 ? answer(card, "temperature") : NOT_SUPPORTED;
}

result_t nvmlDeviceGetPowerUsage(card_t *card, uint *milliwatts) {
    *milliwatts = 250500;
    return card->slot < 0 ? answer(card, "power") : NOT_SUPPORTED;
}

result_t nvmlDeviceGetEnforcedPowerLimit(card_t *card, uint *milliwatts) {
    *milliwatts = 700000;
    return card->slot < 0 ? answer(card, "limit") : NOT_SUPPORTED;
}

result_t nvmlDeviceGetPowerManagementLimit(card_t *card, uint *milliwatts) {
    return nvmlDeviceGetEnforcedPowerLimit(card, milliwatts);
}

result_t nvmlDeviceGetClockInfo(card_t *card, uint domain, uint *mhz) {
    *mhz = domain == 1 ? 1755 : 2619;
    return card->slot < 0 ? answer(card, "clock") : NOT_SUPPORTED;
}

result_t nvmlDeviceGetCurrentClocksThrottleReasons(card_t *card, ull *bits) {
    *bits = (ull)setting("STUB_REASONS", 0);
    return card->slot < 0 ? answer(card, "reasons") : NOT_SUPPORTED;
}

result_t nvmlDeviceGetCurrentClocksEventReasons(card_t *card, ull *bits) {
    *bits = (ull)setting("STUB_REASONS", 0);
    return card->slot < 0 ? newest(card, "reasons") : NOT_SUPPORTED;
}

/* One process on each card: pid 1000 + card, or those of STUB_PIDS. Slices: the first holds it. */
static uint process_of(const card_t *card) {
    const char *pids = getenv("STUB_PIDS");
    for (int skip = card->index; pids && skip; skip--)
        if ((pids = strchr(pids, ','))) pids++;
    if (card->slot > 0 || (getenv("STUB_PIDS") && !pids)) return 0;
    return pids ? (uint)atoi(pids) : 1000 + (uint)card->index;
}

static result_t list(const card_t *card, uint *number, process_t *processes, result_t code) {
    uint pid = process_of(card);
    if (code) return code;
    if (!pid) { *number = 0; return 0; }
    if (!processes || !*number) { *number = 1; return INSUFFICIENT_SIZE; }
    *number = 1;
    processes->pid = pid;
    processes->used = (ull)(card->index + 1) * GIB;
    processes->instance = processes->compute = card->slot < 0 ? 0xffffffffu : (uint)card->slot + 1;
    return 0;
}

result_t nvmlDeviceGetComputeRunningProcesses_v3(card_t *card, uint *number, process_t *processes) {
    return list(card, number, processes, newest(card, "processes"));
}

result_t nvmlDeviceGetComputeRunningProcesses_v2(card_t *card, uint *number, process_t *processes) {
    return list(card, number, processes, answer(card, "processes"));
}

result_t nvmlDeviceGetGraphicsRunningProcesses_v3(card_t *card, uint *number, process_t *processes) {
    (void)processes;
    *number = 0;
    return newest(card, "processes");
}

result_t nvmlDeviceGetGraphicsRunningProcesses_v2(card_t *card, uint *number, process_t *processes) {
    (void)processes;
    *number = 0;
    return answer(card, "processes");
}

result_t nvmlDeviceGetNvLinkState(card_t *card, uint link, uint *is_up) {
    int is_mesh = is_set("STUB_LINKS", "mesh");
    if (!is_mesh && !is_set("STUB_LINKS", "switch")) return NOT_SUPPORTED;
    if (link >= NVLINKS) return INVALID_ARGUMENT;
    *is_up = is_mesh ? (int)link < 2 * (count() - 1) : link != 17;
    return answer(card, "nvlink");
}

result_t nvmlDeviceGetNvLinkRemoteDeviceType(card_t *card, uint link, uint *type) {
    (void)link;
    *type = is_set("STUB_LINKS", "switch") ? 2 : 0;
    return answer(card, "remote");
}

result_t nvmlDeviceGetNvLinkRemotePciInfo_v2(card_t *card, uint link, pci_t *pci) {
    card_t other = {(int)link / 2, -1};
    if (other.index >= card->index) other.index++;
    return nvmlDeviceGetPciInfo_v3(&other, pci);
}

/* Pairs share a switch, quartets a host bridge, the rest go through the sockets. */
result_t nvmlDeviceGetTopologyCommonAncestor(card_t *card, card_t *other, uint *level) {
    *level = card->index / 2 == other->index / 2 ? 10 : card->index / 4 == other->index / 4 ? 30 : 50;
    return answer(card, "ancestor");
}

result_t nvmlDeviceGetP2PStatus(card_t *card, card_t *other, uint index, uint *status) {
    (void)other;
    (void)index;
    *status = (uint)setting("STUB_PEERS", 0);
    return answer(card, "peers");
}
