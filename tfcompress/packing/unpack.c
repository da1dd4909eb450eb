/* unpack.c: reads the .tfcp files that tfcompress.pack writes; C99, no dependency but the C library.
 *
 *   int64_t size = tfcp_unpacked_size(packed, packed_size);            // < 0: an error
 *   int error = tfcp_unpack(packed, packed_size, out, (size_t)size);   // 0: out holds the .tflite
 *
 * Nothing in the packed bytes is trusted: every length is checked before it is used, and what was unpacked is compared
 * with the checksum of the original. Memory beside `out`: about 6 MB, 32 bytes for each code of the largest mixed tensor,
 * and the bytes around the weights if they were packed by LZMA; all of it is freed before tfcp_unpack returns.
 * Compiled with -DTFCP_MAIN it is a command: unpack IN.tfcp OUT.tflite
 *
 * The format, and why it is so, is described in the Python modules beside this file; the names are the same.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { TFCP_OK = 0, TFCP_NOT_TFCP = -1, TFCP_DAMAGED = -2, TFCP_NO_MEMORY = -3, TFCP_WRONG_SIZE = -4 };

int64_t tfcp_unpacked_size(const uint8_t *packed, size_t size);
int tfcp_unpack(const uint8_t *packed, size_t size, uint8_t *out, size_t out_size);
const char *tfcp_error(int error);

/* ---- fields.py: numbers of seven bits a byte -------------------------------------------------------------------- */

typedef struct {
    const uint8_t *at, *end;
    int bad;
} reader;

static const uint8_t *take(reader *r, uint64_t count) {
    const uint8_t *found = r->at;
    if (r->bad || count > (uint64_t)(r->end - r->at)) {
        r->bad = 1;
        return NULL;
    }
    r->at += count;
    return found;
}

static unsigned take_byte(reader *r) {
    const uint8_t *found = take(r, 1);
    return found ? *found : 0;
}

static uint64_t number(reader *r, uint64_t limit) {
    uint64_t value = 0;
    unsigned shift = 0, byte;
    do {
        byte = take_byte(r);
        if (r->bad || shift > 56) {
            r->bad = 1;
            return 0;
        }
        value |= (uint64_t)(byte & 127) << shift;
        shift += 7;
        if (value > limit) {
            r->bad = 1;
            return 0;
        }
    } while (byte > 127);
    return value;
}

#define ANY ((uint64_t)1 << 40)

static uint32_t little(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int64_t floor_shift(int64_t value, unsigned shift) {
    return value < 0 ? ~(~value >> shift) : value >> shift;
}

static unsigned bit_length(uint64_t value) {
    unsigned length = 0;
    for (; value; value >>= 1) length++;
    return length;
}

/* ---- ans.py: constriction's coder, 64 bits of state, words of 32, probabilities of 24 ------------------------------ */

typedef struct {
    const uint8_t *begin, *at; /* words are taken from the end */
    uint64_t state;
} ans;

static uint32_t ans_word(ans *a) {
    a->at -= 4;
    return little(a->at);
}

static int ans_open(ans *a, const uint8_t *begin, uint64_t length) {
    if (!begin) return 0;
    if (length % 4) return 0;
    a->begin = begin;
    a->at = begin + length;
    a->state = 0;
    if (length && !little(a->at - 4)) return 0;
    if (length) a->state = ans_word(a);
    if (length > 4) a->state = a->state << 32 | ans_word(a);
    return 1;
}

static uint32_t ans_peek(const ans *a) { return (uint32_t)(a->state & 0xFFFFFF); }

static void ans_drop(ans *a, uint32_t low, uint32_t frequency) {
    a->state = (a->state >> 24) * frequency + (a->state & 0xFFFFFF) - low;
    if (a->state >> 32 == 0 && a->at > a->begin) a->state = a->state << 32 | ans_word(a);
}

static int ans_bit(ans *a, uint32_t guess) {
    uint32_t zeros = ((uint32_t)1 << 24) - guess * 256;
    int bit = ans_peek(a) >= zeros;
    if (bit) ans_drop(a, zeros, guess * 256);
    else ans_drop(a, 0, zeros);
    return bit;
}

/* ---- mixing.py: tables of the logistic function, and the binary arithmetic decoder -------------------------------- */

typedef struct {
    int32_t squash[6144], stretch[4096];
    uint32_t rate[1024];
} logistic;

static void logistic_fill(logistic *l) {
    uint64_t power = (uint64_t)1 << 30;
    int x, p;
    for (x = 0; x < 3072; x++) {
        int32_t value = (int32_t)(((uint64_t)65536 << 30) / (((uint64_t)1 << 30) + power));
        l->squash[3072 + x] = value;
        power = power * 1069555701u >> 30;
    }
    for (x = 0; x < 3072; x++) l->squash[x] = 65536 - l->squash[x ? 6144 - x : 6143];
    for (x = 0; x < 6144; x++) {
        if (l->squash[x] < 1) l->squash[x] = 1;
        if (l->squash[x] > 65535) l->squash[x] = 65535;
    }
    for (x = 0, p = 0; p < 4096; p++) {
        while (x < 6143 && l->squash[x] < p * 16 + 8) x++;
        l->stretch[p] = x - 3072;
    }
    for (x = 0; x < 1024; x++) l->rate[x] = (uint32_t)(65536 * 2 / (2 * x + 3));
}

static int32_t squash(const logistic *l, int64_t x) {
    return l->squash[x < -3072 ? 0 : x > 3071 ? 6143 : (int)x + 3072];
}

typedef struct {
    const uint8_t *at, *end;
    uint32_t low, high, value;
} arithmetic;

static void arithmetic_open(arithmetic *a, const uint8_t *at, uint64_t length) {
    int i;
    a->at = at;
    a->end = at + length;
    a->low = 0;
    a->high = 0xFFFFFFFFu;
    for (a->value = 0, i = 0; i < 4; i++) a->value = a->value << 8 | (a->at < a->end ? *a->at++ : 0);
}

static int arithmetic_bit(arithmetic *a, uint32_t probability) {
    uint32_t span = a->high - a->low;
    uint32_t middle = a->low + (span >> 16) * probability + ((span & 0xFFFF) * probability >> 16);
    int bit = a->value <= middle;
    if (bit) a->high = middle;
    else a->low = middle + 1;
    while (!((a->low ^ a->high) & 0xFF000000u)) {
        a->low <<= 8;
        a->high = a->high << 8 | 0xFF;
        a->value = a->value << 8 | (a->at < a->end ? *a->at++ : 0);
    }
    return bit;
}

/* ---- skeleton.py: bytes from what stood before ---------------------------------------------------------------------- */

/* primer.bin */
static const uint8_t primer[4880] = {
28, 0, 0, 0, 84, 70, 76, 51, 20, 0, 32, 0, 28, 0, 24, 0, 20, 0, 16, 0, 12, 0, 0, 0, 8, 0, 4, 0,
20, 0, 0, 0, 28, 0, 0, 0, 128, 0, 0, 0, 216, 0, 0, 0, 40, 4, 0, 0, 56, 4, 0, 0, 8, 20, 0, 0,
3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 18, 249, 255, 255, 12, 0, 0, 0, 28, 0, 0, 0, 56, 0, 0, 0,
15, 0, 0, 0, 115, 101, 114, 118, 105, 110, 103, 95, 100, 101, 102, 97, 117, 108, 116, 0, 1, 0, 0, 0, 4, 0, 0, 0,
156, 255, 255, 255, 17, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 100, 101, 110, 115, 101, 95, 49, 0, 1, 0, 0, 0,
4, 0, 0, 0, 134, 251, 255, 255, 4, 0, 0, 0, 5, 0, 0, 0, 105, 110, 112, 117, 116, 0, 0, 0, 2, 0, 0, 0,
52, 0, 0, 0, 4, 0, 0, 0, 220, 255, 255, 255, 9, 0, 0, 0, 4, 0, 0, 0, 19, 0, 0, 0, 67, 79, 78, 86,
69, 82, 83, 73, 79, 78, 95, 77, 69, 84, 65, 68, 65, 84, 65, 0, 8, 0, 12, 0, 8, 0, 4, 0, 8, 0, 0, 0,
8, 0, 0, 0, 4, 0, 0, 0, 19, 0, 0, 0, 109, 105, 110, 95, 114, 117, 110, 116, 105, 109, 101, 95, 118, 101, 114, 115,
105, 111, 110, 0, 12, 0, 0, 0, 76, 3, 0, 0, 252, 2, 0, 0, 164, 2, 0, 0, 76, 2, 0, 0, 220, 1, 0, 0,
172, 1, 0, 0, 148, 1, 0, 0, 244, 0, 0, 0, 212, 0, 0, 0, 100, 0, 0, 0, 52, 0, 0, 0, 4, 0, 0, 0,
42, 252, 255, 255, 4, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 86, 252, 255, 255, 4, 0, 0, 0, 32, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 130, 252, 255, 255, 4, 0, 0, 0, 96, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 8, 0, 14, 0,
8, 0, 4, 0, 8, 0, 0, 0, 16, 0, 0, 0, 36, 0, 0, 0, 0, 0, 6, 0, 8, 0, 4, 0, 6, 0, 0, 0,
4, 0, 0, 0, 0, 0, 0, 0, 12, 0, 24, 0, 20, 0, 16, 0, 12, 0, 4, 0, 12, 0, 0, 0, 43, 161, 220, 98,
123, 191, 43, 69, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 50, 46, 50, 49, 46, 48, 0, 0,
238, 252, 255, 255, 4, 0, 0, 0, 16, 0, 0, 0, 49, 46, 54, 46, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
10, 253, 255, 255, 4, 0, 0, 0, 144, 0, 0, 0, 166, 253, 255, 255, 4, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0,
2, 0, 0, 0, 186, 253, 255, 255, 4, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 230, 253, 255, 255, 4, 0, 0, 0,
96, 0, 0, 0, 82, 254, 255, 255, 4, 0, 0, 0, 72, 0, 0, 0, 166, 254, 255, 255, 4, 0, 0, 0, 72, 0, 0, 0,
250, 254, 255, 255, 4, 0, 0, 0, 64, 0, 0, 0, 76, 240, 255, 255, 15, 0, 0, 0, 77, 76, 73, 82, 32, 67, 111, 110,
118, 101, 114, 116, 101, 100, 46, 0, 1, 0, 0, 0, 20, 0, 0, 0, 0, 0, 14, 0, 24, 0, 20, 0, 16, 0, 12, 0,
8, 0, 4, 0, 14, 0, 0, 0, 20, 0, 0, 0, 28, 0, 0, 0, 208, 2, 0, 0, 212, 2, 0, 0, 216, 2, 0, 0,
4, 0, 0, 0, 109, 97, 105, 110, 0, 0, 0, 0, 10, 0, 0, 0, 148, 2, 0, 0, 60, 2, 0, 0, 216, 1, 0, 0,
116, 1, 0, 0, 20, 1, 0, 0, 224, 0, 0, 0, 156, 0, 0, 0, 100, 0, 0, 0, 40, 0, 0, 0, 4, 0, 0, 0,
158, 253, 255, 255, 12, 0, 0, 0, 16, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 17, 0, 0, 0, 1, 0, 0, 0,
15, 0, 0, 0, 214, 254, 255, 255, 28, 0, 0, 0, 0, 0, 0, 9, 28, 0, 0, 0, 32, 0, 0, 0, 5, 0, 0, 0,
0, 0, 6, 0, 8, 0, 4, 0, 6, 0, 0, 0, 0, 0, 128, 63, 1, 0, 0, 0, 15, 0, 0, 0, 1, 0, 0, 0,
14, 0, 0, 0, 174, 254, 255, 255, 20, 0, 0, 0, 0, 0, 0, 8, 16, 0, 0, 0, 20, 0, 0, 0, 4, 0, 0, 0,
60, 241, 255, 255, 1, 0, 0, 0, 14, 0, 0, 0, 3, 0, 0, 0, 13, 0, 0, 0, 3, 0, 0, 0, 255, 255, 255, 255,
66, 255, 255, 255, 28, 0, 0, 0, 0, 0, 0, 8, 28, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0, 0, 0, 6, 0,
8, 0, 7, 0, 6, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 13, 0, 0, 0, 3, 0, 0, 0, 12, 0, 0, 0,
4, 0, 0, 0, 255, 255, 255, 255, 34, 255, 255, 255, 20, 0, 0, 0, 0, 0, 0, 27, 16, 0, 0, 0, 20, 0, 0, 0,
3, 0, 0, 0, 176, 241, 255, 255, 1, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 11, 0, 0, 0, 6, 0, 0, 0,
242, 254, 255, 255, 28, 0, 0, 0, 0, 0, 0, 1, 40, 0, 0, 0, 44, 0, 0, 0, 12, 0, 20, 0, 19, 0, 12, 0,
8, 0, 7, 0, 12, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0,
11, 0, 0, 0, 3, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 14, 0, 26, 0, 20, 0,
16, 0, 12, 0, 11, 0, 4, 0, 14, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 5, 52, 0, 0, 0, 56, 0, 0, 0,
2, 0, 0, 0, 0, 0, 14, 0, 24, 0, 23, 0, 16, 0, 12, 0, 8, 0, 4, 0, 14, 0, 0, 0, 2, 0, 0, 0,
2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0,
9, 0, 0, 0, 0, 0, 14, 0, 24, 0, 20, 0, 16, 0, 12, 0, 11, 0, 4, 0, 14, 0, 0, 0, 32, 0, 0, 0,
0, 0, 0, 2, 44, 0, 0, 0, 48, 0, 0, 0, 1, 0, 0, 0, 12, 0, 20, 0, 19, 0, 12, 0, 8, 0, 4, 0,
12, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 9, 0, 0, 0,
3, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 14, 0, 20, 0, 0, 0, 16, 0, 12, 0,
11, 0, 4, 0, 14, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 1, 36, 0, 0, 0, 40, 0, 0, 0, 12, 0, 16, 0,
0, 0, 12, 0, 8, 0, 7, 0, 12, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
8, 0, 0, 0, 3, 0, 0, 0, 16, 0, 0, 0, 7, 0, 0, 0, 18, 0, 0, 0, 0, 0, 10, 0, 16, 0, 12, 0,
8, 0, 4, 0, 10, 0, 0, 0, 12, 0, 0, 0, 16, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0,
1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0,
104, 12, 0, 0, 116, 11, 0, 0, 108, 10, 0, 0, 168, 9, 0, 0, 180, 8, 0, 0, 0, 8, 0, 0, 144, 7, 0, 0,
192, 6, 0, 0, 56, 6, 0, 0, 132, 5, 0, 0, 240, 4, 0, 0, 100, 4, 0, 0, 216, 3, 0, 0, 92, 3, 0, 0,
224, 2, 0, 0, 100, 2, 0, 0, 236, 1, 0, 0, 152, 1, 0, 0, 208, 0, 0, 0, 4, 0, 0, 0, 70, 255, 255, 255,
20, 0, 0, 0, 132, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 2, 156, 0, 0, 0, 212, 244, 255, 255, 8, 0, 0, 0,
72, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 136, 157, 88, 55, 150, 206, 89, 55,
194, 130, 59, 55, 115, 254, 68, 55, 225, 251, 49, 55, 181, 171, 80, 55, 163, 72, 23, 55, 239, 217, 84, 55, 28, 0, 0, 0,
97, 114, 105, 116, 104, 46, 99, 111, 110, 115, 116, 97, 110, 116, 95, 100, 117, 112, 108, 105, 99, 97, 116, 101, 100, 95, 49, 57,
0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 14, 0, 24, 0, 20, 0, 19, 0, 12, 0, 8, 0, 4, 0,
14, 0, 0, 0, 20, 0, 0, 0, 132, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 2, 156, 0, 0, 0, 156, 245, 255, 255,
8, 0, 0, 0, 72, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 22, 47, 238, 54,
215, 191, 252, 54, 17, 163, 254, 54, 80, 13, 255, 54, 34, 40, 232, 54, 183, 5, 243, 54, 63, 112, 247, 54, 116, 37, 2, 55,
28, 0, 0, 0, 97, 114, 105, 116, 104, 46, 99, 111, 110, 115, 116, 97, 110, 116, 95, 100, 117, 112, 108, 105, 99, 97, 116, 101,
100, 95, 49, 56, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 12, 0, 12, 0, 8, 0, 0, 0, 0, 0, 4, 0,
12, 0, 0, 0, 8, 0, 0, 0, 44, 0, 0, 0, 33, 0, 0, 0, 83, 116, 97, 116, 101, 102, 117, 108, 80, 97, 114, 116,
105, 116, 105, 111, 110, 101, 100, 67, 97, 108, 108, 58, 48, 95, 100, 101, 113, 117, 97, 110, 116, 0, 0, 0, 2, 0, 0, 0,
1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 14, 0, 20, 0, 16, 0, 15, 0, 0, 0, 8, 0, 4, 0, 14, 0, 0, 0,
16, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 9, 80, 0, 0, 0, 172, 246, 255, 255, 8, 0, 0, 0, 20, 0, 0, 0,
1, 0, 0, 0, 128, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 1, 0, 0, 0, 101, 128, 128, 59, 33, 0, 0, 0,
115, 101, 114, 118, 105, 110, 103, 95, 100, 101, 102, 97, 117, 108, 116, 95, 105, 110, 112, 117, 116, 58, 48, 95, 113, 117, 97, 110,
116, 105, 122, 101, 100, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0,
94, 252, 255, 255, 0, 0, 0, 1, 20, 0, 0, 0, 28, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 9, 84, 0, 0, 0,
2, 0, 0, 0, 255, 255, 255, 255, 6, 0, 0, 0, 52, 247, 255, 255, 8, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0,
128, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 128, 59, 25, 0, 0, 0, 83, 116, 97, 116,
101, 102, 117, 108, 80, 97, 114, 116, 105, 116, 105, 111, 110, 101, 100, 67, 97, 108, 108, 58, 48, 0, 0, 0, 2, 0, 0, 0,
1, 0, 0, 0, 6, 0, 0, 0, 214, 252, 255, 255, 0, 0, 0, 1, 20, 0, 0, 0, 28, 0, 0, 0, 56, 0, 0, 0,
0, 0, 0, 9, 84, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255, 6, 0, 0, 0, 172, 247, 255, 255, 8, 0, 0, 0,
16, 0, 0, 0, 1, 0, 0, 0, 218, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 134, 131, 175, 58, 30, 0, 0, 0,
102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49, 47, 100, 101, 110, 115, 101, 95, 49, 95, 50, 47, 77, 97, 116, 77, 117,
108, 49, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0, 78, 253, 255, 255, 0, 0, 0, 1, 20, 0, 0, 0,
28, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 9, 84, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255, 12, 0, 0, 0,
36, 248, 255, 255, 8, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 128, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
1, 0, 0, 0, 110, 229, 140, 58, 27, 0, 0, 0, 102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49, 47, 100, 101, 110,
115, 101, 95, 49, 47, 77, 97, 116, 77, 117, 108, 0, 2, 0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 198, 253, 255, 255,
0, 0, 0, 1, 20, 0, 0, 0, 28, 0, 0, 0, 56, 0, 0, 0, 0, 0, 0, 9, 100, 0, 0, 0, 2, 0, 0, 0,
255, 255, 255, 255, 8, 0, 0, 0, 156, 248, 255, 255, 8, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 128, 255, 255, 255,
255, 255, 255, 255, 1, 0, 0, 0, 172, 40, 132, 58, 44, 0, 0, 0, 102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49,
47, 103, 108, 111, 98, 97, 108, 95, 97, 118, 101, 114, 97, 103, 101, 95, 112, 111, 111, 108, 105, 110, 103, 50, 100, 95, 49, 47,
77, 101, 97, 110, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 78, 254, 255, 255, 0, 0, 0, 1,
20, 0, 0, 0, 36, 0, 0, 0, 68, 0, 0, 0, 0, 0, 0, 9, 92, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255,
7, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 44, 249, 255, 255, 8, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0,
128, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 1, 0, 0, 0, 142, 225, 228, 58, 26, 0, 0, 0, 102, 117, 110, 99,
116, 105, 111, 110, 97, 108, 95, 49, 47, 99, 111, 110, 118, 50, 100, 95, 49, 47, 82, 101, 108, 117, 0, 0, 4, 0, 0, 0,
1, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 214, 254, 255, 255, 0, 0, 0, 1, 20, 0, 0, 0,
36, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 9, 100, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 7, 0, 0, 0,
7, 0, 0, 0, 8, 0, 0, 0, 180, 249, 255, 255, 8, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 59, 0, 0, 0,
0, 0, 0, 0, 1, 0, 0, 0, 56, 132, 171, 59, 38, 0, 0, 0, 102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49,
47, 109, 97, 120, 95, 112, 111, 111, 108, 105, 110, 103, 50, 100, 95, 49, 47, 77, 97, 120, 80, 111, 111, 108, 50, 100, 0, 0,
4, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 102, 255, 255, 255, 0, 0, 0, 1,
20, 0, 0, 0, 36, 0, 0, 0, 68, 0, 0, 0, 0, 0, 0, 9, 108, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255,
14, 0, 0, 0, 14, 0, 0, 0, 8, 0, 0, 0, 68, 250, 255, 255, 8, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0,
59, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 56, 132, 171, 59, 42, 0, 0, 0, 102, 117, 110, 99,
116, 105, 111, 110, 97, 108, 95, 49, 47, 100, 101, 112, 116, 104, 119, 105, 115, 101, 95, 99, 111, 110, 118, 50, 100, 95, 49, 47,
100, 101, 112, 116, 104, 119, 105, 115, 101, 49, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0,
8, 0, 0, 0, 0, 0, 22, 0, 28, 0, 24, 0, 23, 0, 0, 0, 16, 0, 12, 0, 0, 0, 0, 0, 8, 0, 7, 0,
22, 0, 0, 0, 0, 0, 0, 1, 20, 0, 0, 0, 36, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 9, 88, 0, 0, 0,
4, 0, 0, 0, 255, 255, 255, 255, 16, 0, 0, 0, 16, 0, 0, 0, 8, 0, 0, 0, 244, 250, 255, 255, 8, 0, 0, 0,
16, 0, 0, 0, 1, 0, 0, 0, 128, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 135, 131, 198, 59, 25, 0, 0, 0,
102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49, 47, 114, 101, 95, 108, 117, 95, 49, 47, 82, 101, 108, 117, 0, 0, 0,
4, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 8, 0, 0, 0, 122, 251, 255, 255, 0, 0, 0, 1,
20, 0, 0, 0, 132, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 9, 160, 0, 0, 0, 100, 251, 255, 255, 8, 0, 0, 0,
72, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 26, 65, 237, 58, 77, 195, 251, 58,
164, 164, 253, 58, 121, 14, 254, 58, 44, 64, 231, 58, 229, 18, 242, 58, 4, 121, 246, 58, 106, 163, 1, 59, 35, 0, 0, 0,
102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49, 47, 99, 111, 110, 118, 50, 100, 95, 48, 95, 49, 47, 99, 111, 110, 118,
111, 108, 117, 116, 105, 111, 110, 0, 4, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0,
70, 252, 255, 255, 0, 0, 0, 1, 20, 0, 0, 0, 20, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 2, 76, 0, 0, 0,
48, 251, 255, 255, 62, 0, 0, 0, 102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49, 47, 103, 108, 111, 98, 97, 108, 95,
97, 118, 101, 114, 97, 103, 101, 95, 112, 111, 111, 108, 105, 110, 103, 50, 100, 95, 49, 47, 77, 101, 97, 110, 47, 114, 101, 100,
117, 99, 116, 105, 111, 110, 95, 105, 110, 100, 105, 99, 101, 115, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 178, 252, 255, 255,
0, 0, 0, 1, 20, 0, 0, 0, 136, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 2, 144, 0, 0, 0, 156, 252, 255, 255,
8, 0, 0, 0, 76, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0,
67, 168, 187, 55, 128, 244, 187, 55, 4, 245, 176, 55, 121, 220, 203, 55, 105, 100, 194, 55, 127, 159, 169, 55, 100, 150, 205, 55,
79, 230, 205, 55, 14, 0, 0, 0, 97, 114, 105, 116, 104, 46, 99, 111, 110, 115, 116, 97, 110, 116, 0, 0, 1, 0, 0, 0,
8, 0, 0, 0, 98, 253, 255, 255, 0, 0, 0, 1, 20, 0, 0, 0, 180, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 9,
204, 0, 0, 0, 76, 253, 255, 255, 8, 0, 0, 0, 104, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 12, 0, 0, 0, 38, 85, 112, 59, 150, 128, 82, 59, 36, 157, 96, 59, 102, 167, 122, 59, 203, 13, 136, 59,
13, 219, 140, 59, 143, 8, 104, 59, 99, 195, 135, 59, 249, 121, 116, 59, 248, 200, 122, 59, 77, 148, 139, 59, 12, 215, 76, 59,
29, 0, 0, 0, 102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49, 47, 100, 101, 110, 115, 101, 95, 49, 47, 77, 97, 116,
77, 117, 108, 95, 50, 0, 0, 0, 2, 0, 0, 0, 12, 0, 0, 0, 8, 0, 0, 0, 82, 254, 255, 255, 0, 0, 0, 1,
20, 0, 0, 0, 108, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 9, 132, 0, 0, 0, 60, 254, 255, 255, 8, 0, 0, 0,
56, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
6, 0, 0, 0, 24, 251, 144, 59, 228, 227, 146, 59, 206, 137, 148, 59, 74, 33, 146, 59, 115, 250, 129, 59, 176, 219, 108, 59,
29, 0, 0, 0, 102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49, 47, 100, 101, 110, 115, 101, 95, 49, 95, 50, 47, 77,
97, 116, 77, 117, 108, 0, 0, 0, 2, 0, 0, 0, 6, 0, 0, 0, 12, 0, 0, 0, 0, 0, 22, 0, 30, 0, 24, 0,
23, 0, 16, 0, 12, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 22, 0, 0, 0, 0, 0, 0, 1, 40, 0, 0, 0,
156, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 9, 192, 0, 0, 0, 0, 0, 18, 0, 16, 0, 0, 0, 0, 0, 12, 0,
8, 0, 0, 0, 0, 0, 4, 0, 18, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 72, 0, 0, 0, 8, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 248, 171, 11, 59, 170, 112, 12, 59, 139, 207, 241, 58, 65, 10, 254, 58,
104, 134, 229, 58, 147, 140, 6, 59, 203, 23, 195, 58, 166, 62, 9, 59, 41, 0, 0, 0, 102, 117, 110, 99, 116, 105, 111, 110,
97, 108, 95, 49, 47, 100, 101, 112, 116, 104, 119, 105, 115, 101, 95, 99, 111, 110, 118, 50, 100, 95, 49, 47, 100, 101, 112, 116,
104, 119, 105, 115, 101, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0,
0, 0, 22, 0, 28, 0, 24, 0, 23, 0, 16, 0, 12, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 22, 0, 0, 0,
0, 0, 0, 1, 32, 0, 0, 0, 144, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, 172, 0, 0, 0, 12, 0, 12, 0,
0, 0, 0, 0, 8, 0, 4, 0, 12, 0, 0, 0, 8, 0, 0, 0, 72, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
0, 0, 0, 0, 8, 0, 0, 0, 174, 11, 140, 59, 147, 68, 140, 59, 108, 15, 132, 59, 108, 35, 152, 59, 98, 18, 145, 59,
133, 44, 125, 59, 56, 109, 153, 59, 220, 168, 153, 59, 33, 0, 0, 0, 102, 117, 110, 99, 116, 105, 111, 110, 97, 108, 95, 49,
47, 99, 111, 110, 118, 50, 100, 95, 49, 47, 99, 111, 110, 118, 111, 108, 117, 116, 105, 111, 110, 0, 0, 0, 4, 0, 0, 0,
8, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 22, 0, 24, 0, 20, 0, 0, 0, 0, 0,
16, 0, 12, 0, 0, 0, 0, 0, 8, 0, 7, 0, 22, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0, 0, 36, 0, 0, 0,
36, 0, 0, 0, 60, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 16, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0,
4, 0, 4, 0, 4, 0, 0, 0, 23, 0, 0, 0, 115, 101, 114, 118, 105, 110, 103, 95, 100, 101, 102, 97, 117, 108, 116, 95,
105, 110, 112, 117, 116, 58, 48, 0, 4, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0,
8, 0, 0, 0, 132, 0, 0, 0, 104, 0, 0, 0, 88, 0, 0, 0, 72, 0, 0, 0, 56, 0, 0, 0, 40, 0, 0, 0,
28, 0, 0, 0, 4, 0, 0, 0, 248, 255, 255, 255, 6, 0, 0, 0, 12, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0,
12, 0, 0, 0, 114, 0, 0, 0, 196, 255, 255, 255, 25, 0, 0, 0, 0, 0, 0, 25, 208, 255, 255, 255, 9, 0, 0, 0,
0, 0, 0, 9, 220, 255, 255, 255, 40, 0, 0, 0, 0, 0, 0, 40, 232, 255, 255, 255, 17, 0, 0, 0, 0, 0, 0, 17,
244, 255, 255, 255, 4, 0, 0, 0, 0, 0, 0, 4, 12, 0, 12, 0, 11, 0, 0, 0, 0, 0, 4, 0, 12, 0, 0, 0,
3, 0, 0, 0, 0, 0, 0, 3
};
/* end of primer.bin */

enum { B_INPUTS = 10, B_BITS = 16, B_SETS = 4 * 3 * 8, B_LIMIT = 60, B_RATE = 14, B_MOST = 24000, B_LONGEST = 32, W_FIRST = 10000 };
enum { B_SHORTEST = 5, B_HEADS = 1 << 14, B_PAST = 16 + B_MOST + 8192 };

typedef struct {
    uint32_t table[B_INPUTS << B_BITS];
    int64_t weights[B_SETS * B_INPUTS];
    uint8_t past[B_PAST];
    uint32_t heads[B_HEADS], before[B_PAST]; /* where the same five bytes ended earlier */
    uint32_t size, match, length;
} bytes_model;

static int mixer_code(bytes_model *m, const logistic *l, arithmetic *a, const uint32_t *slots, unsigned chosen, int bit) {
    int64_t *weights = m->weights + chosen * B_INPUTS, mixed = 0, error;
    int32_t stretched[B_INPUTS], probability;
    int i;
    for (i = 0; i < B_INPUTS; i++) {
        stretched[i] = l->stretch[m->table[slots[i]] >> 14];
        mixed += weights[i] * stretched[i];
    }
    probability = squash(l, floor_shift(mixed, 16));
    if (a) bit = arithmetic_bit(a, (uint32_t)probability);
    error = ((int64_t)bit * 65536 - probability) * B_RATE;
    for (i = 0; i < B_INPUTS; i++) weights[i] += floor_shift(stretched[i] * error + 131072, 18);
    for (i = 0; i < B_INPUTS; i++) {
        uint32_t state = m->table[slots[i]], count = state & 1023, guess = state >> 10;
        if (bit) guess += (65535 - guess) * l->rate[count] >> 16;
        else guess -= guess * l->rate[count] >> 16;
        m->table[slots[i]] = guess << 10 | (count < B_LIMIT ? count + 1 : count);
    }
    return bit;
}

static void bytes_hashes(const bytes_model *m, unsigned column, uint32_t *hashes) {
    const uint8_t *p = m->past + m->size;
    uint32_t one = p[-1], two = p[-2], four = p[-4], i;
    uint32_t last = one | two << 8 | (uint32_t)p[-3] << 16 | four << 24;
    hashes[0] = column;
    hashes[1] = one << 2 | column;
    hashes[2] = last & 0xFFFF;
    hashes[3] = last & 0xFFFFFF;
    hashes[4] = last;
    hashes[5] = last * 31 + p[-5] + ((uint32_t)p[-6] << 8);
    hashes[6] = four << 10 | (uint32_t)p[-8] << 2 | column;
    hashes[7] = (four | one << 8 | two << 16) << 2 | column;
    hashes[8] = (four | (uint32_t)p[-8] << 8 | (uint32_t)p[-12] << 16) << 2 | column;
    for (i = 0; i < B_INPUTS - 1; i++) hashes[i] = (hashes[i] + 1) * 0x85EBCA6Bu;
}

static void bytes_find(bytes_model *m) {
    const uint8_t *p = m->past;
    uint32_t size = m->size, key, place;
    if (m->length && p[m->match] == p[size - 1]) {
        m->match++;
        if (m->length < B_LONGEST) m->length++;
    } else {
        m->length = 0;
    }
    key = (little(p + size - 4) * 0x9E3779B1u + p[size - 5] * 0x85EBCA6Bu) >> 18;
    if (!m->length) {
        for (place = m->heads[key]; place && memcmp(p + place - 5, p + size - 5, 5); place = m->before[place]) {}
        m->match = place;
        if (place) {
            m->length = 1;
            while (m->length < B_LONGEST && m->length < place && p[place - 1 - m->length] == p[size - 1 - m->length])
                m->length++;
        }
    }
    m->before[size] = m->heads[key];
    m->heads[key] = size;
}

/* One byte: from `a`, or (a NULL) the one given, to be learnt from. */
static uint8_t bytes_code(bytes_model *m, const logistic *l, arithmetic *a, unsigned byte, unsigned column) {
    uint32_t hashes[B_INPUTS], slots[B_INPUTS], node = 1, expected = m->length ? m->past[m->match] : 0, length, i;
    int place;
    bytes_hashes(m, column, hashes);
    length = m->length < 15 ? m->length : 15;
    for (place = 7; place >= 0; place--) {
        int agrees = length && (expected | 256) >> (place + 1) == node;
        unsigned state = !agrees ? 0 : length < 8 ? 1 : 2;
        for (i = 0; i < B_INPUTS - 1; i++)
            slots[i] = i << B_BITS | (hashes[i] + node * 0x2545F491u) >> (32 - B_BITS);
        slots[i] = i << B_BITS | (agrees ? 1 + 2 * length + (expected >> place & 1) : 0);
        node = node << 1 | (uint32_t)mixer_code(m, l, a, slots, (state << 2 | column) << 3 | (unsigned)place,
                                                (int)(byte >> place & 1));
    }
    m->past[m->size++] = (uint8_t)node;
    bytes_find(m);
    return (uint8_t)node;
}

static void bytes_open(bytes_model *m, const logistic *l) {
    uint32_t i;
    memset(m, 0, sizeof *m);
    for (i = 0; i < B_INPUTS << B_BITS; i++) m->table[i] = (uint32_t)32768 << 10;
    for (i = 0; i < B_SETS * B_INPUTS; i++) m->weights[i] = W_FIRST;
    m->size = 16;
    for (i = 0; i < sizeof primer; i++) bytes_code(m, l, NULL, primer[i], i & 3);
}

/* ---- LZMA1 without a header (7-zip's LZMA specification), for large skeletons and for tensors that repeat ---------- */

typedef struct {
    const uint8_t *at, *end;
    uint32_t range, code;
    int bad;
} lzma_range;

static uint32_t lz_byte(lzma_range *r) {
    if (r->at < r->end) return *r->at++;
    r->bad = 1;
    return 0;
}

static void lz_normalize(lzma_range *r) {
    if (r->range < (uint32_t)1 << 24) {
        r->range <<= 8;
        r->code = r->code << 8 | lz_byte(r);
    }
}

static unsigned lz_bit(lzma_range *r, uint16_t *p) {
    uint32_t bound = (r->range >> 11) * *p;
    unsigned bit = r->code >= bound;
    if (bit) {
        *p = (uint16_t)(*p - (*p >> 5));
        r->code -= bound;
        r->range -= bound;
    } else {
        *p = (uint16_t)(*p + ((2048 - *p) >> 5));
        r->range = bound;
    }
    lz_normalize(r);
    return bit;
}

static unsigned lz_direct(lzma_range *r, unsigned count) {
    unsigned found = 0;
    while (count--) {
        unsigned bit;
        r->range >>= 1;
        bit = r->code >= r->range;
        if (bit) r->code -= r->range;
        lz_normalize(r);
        found = found << 1 | bit;
    }
    return found;
}

static unsigned lz_tree(lzma_range *r, uint16_t *p, unsigned bits) {
    unsigned node = 1, i;
    for (i = 0; i < bits; i++) node = node << 1 | lz_bit(r, p + node);
    return node - (1u << bits);
}

static unsigned lz_reverse(lzma_range *r, uint16_t *p, unsigned bits) {
    unsigned node = 1, found = 0, i;
    for (i = 0; i < bits; i++) {
        unsigned bit = lz_bit(r, p + node);
        node = node << 1 | bit;
        found |= bit << i;
    }
    return found;
}

typedef struct {
    uint16_t choice, choice2, low[16][8], mid[16][8], high[256];
} lz_length;

typedef struct {
    uint16_t is_match[12][16], is_rep[12], rep0[12], rep1[12], rep2[12], rep0_long[12][16];
    uint16_t slot[4][64], special[128], align[16], literal[0x300 << 4];
    lz_length length, rep_length;
} lz_model;

static unsigned lz_read_length(lzma_range *r, lz_length *l, unsigned state) {
    if (!lz_bit(r, &l->choice)) return lz_tree(r, l->low[state], 3);
    if (!lz_bit(r, &l->choice2)) return 8 + lz_tree(r, l->mid[state], 3);
    return 16 + lz_tree(r, l->high, 8);
}

static unsigned lz_distance(lzma_range *r, lz_model *m, unsigned length) {
    unsigned slot = lz_tree(r, m->slot[length > 3 ? 3 : length], 6), bits, distance;
    if (slot < 4) return slot;
    bits = (slot >> 1) - 1;
    distance = (2 | (slot & 1)) << bits;
    if (slot < 14) return distance + lz_reverse(r, m->special + distance - slot, bits);
    distance += lz_direct(r, bits - 4) << 4;
    return distance + lz_reverse(r, m->align, 4);
}

static void lz_literal(lzma_range *r, lz_model *m, uint8_t *out, size_t done, unsigned context, int after, size_t back) {
    uint16_t *p = m->literal + 0x300 * context;
    unsigned symbol = 1;
    if (after) {
        unsigned match = out[done - back];
        do {
            unsigned want = match >> 7 & 1, bit = lz_bit(r, p + ((1 + want) << 8) + symbol);
            match <<= 1;
            symbol = symbol << 1 | bit;
            if (want != bit) break;
        } while (symbol < 0x100);
    }
    while (symbol < 0x100) symbol = symbol << 1 | lz_bit(r, p + symbol);
    out[done] = (uint8_t)symbol;
}

/* `size` bytes to `out`; 0 if the stream holds another number of them. */
static int lzma_read(const uint8_t *at, uint64_t packed, uint8_t *out, size_t size, unsigned lc, unsigned lp, unsigned pb) {
    lz_model *m;
    uint16_t *p;
    lzma_range r;
    unsigned state = 0, place, length, i;
    uint32_t rep[4] = {0, 0, 0, 0}, found;
    size_t done = 0;
    if (!at || packed < 5 || at[0] || lc + lp > 4 || pb > 4) return 0;
    m = malloc(sizeof *m);
    if (!m) return 0;
    for (p = (uint16_t *)m, i = 0; i < sizeof *m / 2; i++) p[i] = 1024;
    r.at = at + 1;
    r.end = at + packed;
    r.range = 0xFFFFFFFFu;
    r.bad = 0;
    for (r.code = 0, i = 0; i < 4; i++) r.code = r.code << 8 | lz_byte(&r);
    while (!r.bad) {
        place = (unsigned)(done & ((1u << pb) - 1));
        if (done == size && !lz_bit(&r, &m->is_match[state][place])) break; /* more than there may be */
        if (done < size && !lz_bit(&r, &m->is_match[state][place])) {
            unsigned last = done ? out[done - 1] : 0;
            unsigned context = (unsigned)((done & ((1u << lp) - 1)) << lc) + (last >> (8 - lc));
            if (state >= 7 && (size_t)rep[0] + 1 > done) break;
            lz_literal(&r, m, out, done, context, state >= 7, (size_t)rep[0] + 1);
            done++;
            state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
            continue;
        }
        if (lz_bit(&r, &m->is_rep[state])) {
            if (!done) break;
            if (!lz_bit(&r, &m->rep0[state])) {
                if (!lz_bit(&r, &m->rep0_long[state][place])) {
                    if (done == size || (size_t)rep[0] + 1 > done) break;
                    state = state < 7 ? 9 : 11;
                    out[done] = out[done - rep[0] - 1];
                    done++;
                    continue;
                }
            } else {
                if (!lz_bit(&r, &m->rep1[state])) {
                    found = rep[1];
                } else {
                    if (!lz_bit(&r, &m->rep2[state])) {
                        found = rep[2];
                    } else {
                        found = rep[3];
                        rep[3] = rep[2];
                    }
                    rep[2] = rep[1];
                }
                rep[1] = rep[0];
                rep[0] = found;
            }
            length = lz_read_length(&r, &m->rep_length, place);
            state = state < 7 ? 8 : 11;
        } else {
            rep[3] = rep[2];
            rep[2] = rep[1];
            rep[1] = rep[0];
            length = lz_read_length(&r, &m->length, place);
            state = state < 7 ? 7 : 10;
            rep[0] = lz_distance(&r, m, length);
            if (rep[0] == 0xFFFFFFFFu) { /* the end */
                free(m);
                return done == size && !r.bad && !r.code;
            }
        }
        length += 2;
        if ((size_t)rep[0] + 1 > done || length > size - done) break;
        for (; length; length--, done++) out[done] = out[done - rep[0] - 1];
    }
    free(m);
    return 0;
}

/* ---- streams.py: symbols by fixed widths, Golomb-Rice, Huffman or ANS ------------------------------------------------ */

enum { FIXED, RICE, HUFFMAN, ANS_ROUNDED, ANS_EXACT, MOST_KINDS = 4096, LONGEST = 24, BLOCK = 1 << 22 };

typedef struct {
    unsigned coder, width, longest;
    uint32_t kinds, low[MOST_KINDS + 1]; /* low: where each symbol's interval of ANS begins */
    uint16_t order[MOST_KINDS];          /* of HUFFMAN: symbols by their codes */
    uint32_t members[LONGEST + 1];
    reader lengths;                      /* of the blocks of ANS */
    const uint8_t *at, *end;
    uint64_t bit, bits, left, count;     /* left: symbols in this block of ANS; count: in all of them */
    ans state;
    int bad;
} stream;

static unsigned stream_bit(stream *s) {
    unsigned bit;
    if (s->bit >= s->bits) {
        s->bad = 1;
        return 1;
    }
    bit = s->at[s->bit >> 3] >> (7 - (s->bit & 7)) & 1;
    s->bit++;
    return bit;
}

static int huffman_table(stream *s, const uint32_t *lengths) {
    uint64_t room = 0;
    uint32_t i, next = 0;
    unsigned length;
    memset(s->members, 0, sizeof s->members);
    for (i = 0; i < s->kinds; i++) {
        if (lengths[i] > LONGEST) return 0;
        if (lengths[i]) s->members[lengths[i]]++, room += (uint64_t)1 << (LONGEST - lengths[i]);
    }
    if (!room || room > (uint64_t)1 << LONGEST) return 0;
    for (length = 1; length <= LONGEST; length++)
        for (i = 0; i < s->kinds; i++)
            if (lengths[i] == length) s->order[next++] = (uint16_t)i;
    return 1;
}

static int ans_table(stream *s, const uint32_t *counts, int rounded) {
    uint64_t sum = 0, total = 0, largest = 0;
    uint32_t i, best = 0;
    for (i = 0; i < s->kinds; i++) {
        uint64_t count = counts[i];
        if (rounded) {
            if (count > 239) return 0;
            if (count >= 16) count = (uint64_t)(8 + count % 8) << (count / 8 - 1);
        }
        s->low[i] = 0;
        sum += count;
        if (count > largest) largest = count, best = i;
    }
    if (!sum) sum = 1;
    for (i = 0; i < s->kinds; i++) {
        uint64_t count = counts[i];
        if (rounded && count >= 16) count = (uint64_t)(8 + count % 8) << (count / 8 - 1);
        s->low[i] = (uint32_t)(1 + count * (((uint64_t)1 << 24) - s->kinds) / sum);
        total += s->low[i];
    }
    s->low[best] += (uint32_t)(((uint64_t)1 << 24) - total);
    for (total = 0, i = 0; i <= s->kinds; i++) {
        uint32_t frequency = i < s->kinds ? s->low[i] : 0;
        s->low[i] = (uint32_t)total;
        total += frequency;
    }
    return 1;
}

static int stream_open(stream *s, reader *fields, reader *payload, uint64_t count) {
    uint32_t i;
    uint64_t length, sum = 0, blocks;
    memset(s, 0, offsetof(stream, low));
    s->bad = 0;
    s->bit = s->left = 0;
    s->count = count;
    s->coder = take_byte(fields);
    if (s->coder == FIXED) {
        s->width = (unsigned)number(fields, 16);
        length = (count * s->width + 7) / 8;
    } else if (s->coder == RICE) {
        s->width = (unsigned)number(fields, 15);
        length = number(fields, ANY);
    } else if (s->coder <= ANS_EXACT) {
        uint32_t values[MOST_KINDS];
        s->kinds = (uint32_t)number(fields, MOST_KINDS);
        for (i = 0; i < s->kinds; i++) values[i] = (uint32_t)number(fields, 0xFFFFFFFFu);
        if (fields->bad || s->kinds < 2) return 0;
        if (s->coder == HUFFMAN) {
            if (!huffman_table(s, values)) return 0;
            length = number(fields, ANY);
        } else {
            if (!ans_table(s, values, s->coder == ANS_ROUNDED)) return 0;
            s->lengths = *fields;
            blocks = (count + BLOCK - 1) / BLOCK;
            for (; blocks && !fields->bad; blocks--) sum += number(fields, ANY);
            length = sum;
        }
    } else {
        return 0;
    }
    if (fields->bad) return 0;
    s->at = take(payload, length);
    if (!s->at) return 0;
    s->end = s->at + length;
    s->bits = length * 8;
    return 1;
}

static uint32_t stream_huffman(stream *s) {
    uint32_t code = 0, first = 0, index = 0;
    unsigned length;
    for (length = 1; length <= LONGEST; length++) {
        code |= stream_bit(s);
        if (s->bad) return 0;
        if (code - first < s->members[length]) return s->order[index + code - first];
        index += s->members[length];
        first = (first + s->members[length]) << 1;
        code <<= 1;
    }
    s->bad = 1;
    return 0;
}

static uint32_t stream_ans(stream *s) {
    uint32_t value, low = 0, high = s->kinds;
    if (!s->left) {
        uint64_t length = number(&s->lengths, ANY);
        if (s->lengths.bad || length > (uint64_t)(s->end - s->at) || !ans_open(&s->state, s->at, length)) {
            s->bad = 1;
            return 0;
        }
        s->at += length;
        s->left = BLOCK;
    }
    s->left--;
    s->count--;
    value = ans_peek(&s->state);
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (s->low[middle] <= value) low = middle;
        else high = middle;
    }
    ans_drop(&s->state, s->low[low], s->low[low + 1] - s->low[low]);
    if ((!s->left || !s->count) && (s->state.state || s->state.at > s->state.begin)) s->bad = 1; /* something left over */
    return low;
}

static uint64_t stream_next(stream *s) {
    uint64_t value = 0;
    unsigned i;
    if (s->coder == HUFFMAN) return stream_huffman(s);
    if (s->coder == ANS_ROUNDED || s->coder == ANS_EXACT) return stream_ans(s);
    if (s->coder == FIXED && s->width == 8 && s->bit + 8 <= s->bits) {
        value = s->at[s->bit >> 3];
        s->bit += 8;
        return value;
    }
    if (s->coder == RICE)
        while (!stream_bit(s)) value++;
    for (i = 0; i < s->width; i++) value = value << 1 | stream_bit(s);
    return value;
}

/* ---- symbols.py: codes back to values ---------------------------------------------------------------------------------- */

typedef struct {
    unsigned width, axis; /* width 33: scales */
    uint32_t kinds, alphabet[MOST_KINDS];
    const uint8_t *scales;
    uint64_t channels, count;
    uint8_t *out;
} form;

static int form_open(form *f, reader *fields, reader *payload, uint8_t *out, uint64_t length) {
    uint32_t i, flip;
    uint64_t next = 0;
    unsigned bits;
    f->out = out;
    f->axis = 0;
    f->channels = 1;
    f->scales = NULL;
    f->width = take_byte(fields);
    if (f->width == 33) {
        f->axis = take_byte(fields);
        f->channels = number(fields, (uint64_t)1 << 24);
        if (f->axis > 1 || !f->channels || !(f->scales = take(payload, 4 * f->channels))) return 0;
    } else if (f->width != 2 && f->width != 4 && f->width != 8 && f->width != 16 && f->width != 32) {
        return 0;
    }
    bits = f->scales ? 8 : f->width;
    f->kinds = (uint32_t)number(fields, bits < 12 ? (uint64_t)1 << bits : MOST_KINDS);
    if (fields->bad || !f->kinds) return 0;
    flip = f->width == 32 ? 0 : (uint32_t)1 << (bits - 1);
    for (i = 0; i < f->kinds; i++) {
        if (f->width == 32) {
            const uint8_t *value = take(fields, 4);
            if (!value) return 0;
            f->alphabet[i] = little(value);
            continue;
        }
        next += number(fields, (uint64_t)1 << bits);
        if (fields->bad || next >> bits) return 0;
        f->alphabet[i] = (uint32_t)next ^ flip;
        next++;
    }
    f->count = length * 8 / (f->scales ? 32 : f->width);
    if (f->count * (f->scales ? 32 : f->width) != length * 8 || f->count % f->channels) return 0;
    if (f->width < 8) memset(out, 0, (size_t)length);
    return 1;
}

static void put(uint8_t *out, uint32_t value, unsigned bytes) {
    for (; bytes; bytes--, value >>= 8) *out++ = (uint8_t)value;
}

static int form_put(form *f, uint64_t place, uint64_t code) {
    uint32_t value;
    if (code >= f->kinds) return 0;
    value = f->alphabet[code];
    if (f->scales) {
        uint64_t channel = f->axis ? place % f->channels : place / (f->count / f->channels);
        uint32_t bits = little(f->scales + 4 * channel);
        float scale, result;
        memcpy(&scale, &bits, 4);
        result = (float)((double)(int8_t)value * (double)scale);
        memcpy(&bits, &result, 4);
        put(f->out + 4 * place, bits, 4);
    } else if (f->width >= 8) {
        put(f->out + place * (f->width / 8), value, f->width / 8);
    } else {
        uint64_t bit = place * f->width;
        f->out[bit >> 3] = (uint8_t)(f->out[bit >> 3] | value << (bit & 7));
    }
    return 1;
}

/* ---- weight_model.py: codes from their neighbours --------------------------------------------------------------------- */

enum { W_CONTEXTS = 9, W_STAGES = 32, W_VALUES = 1024, W_LIMIT = 1023, W_BATCH = 64, W_BATCHES = 512 };
enum { W_SIGN = 1, W_LARGER = 2, W_UPPER = 10, W_LOWER = 18, W_MOST = 1 << 21 };

typedef struct {
    uint32_t counts[2][W_CONTEXTS * W_STAGES * W_VALUES];
    int64_t weights[W_STAGES][W_CONTEXTS];
} codes_model;

typedef struct {
    uint64_t count, row, filter;
    int16_t *codes;
    uint32_t *sums[3], *seen[3];
    int weigh;
    uint16_t *contexts;          /* of a batch: W_CONTEXTS for each code */
    uint32_t *some, *growing;    /* places in the batch */
    uint8_t *bits, *flags;       /* bits of each magnitude, decisions */
    uint32_t *found;
} history;

static unsigned level(uint64_t total, uint64_t seen) {
    uint64_t mean;
    unsigned length, value;
    if (!seen) return 31;
    mean = total * 64 / seen;
    length = bit_length(mean);
    value = 2 * length + (length > 1 ? (unsigned)(mean >> (length - 2) & 1) : 0);
    return value < 30 ? value : 30;
}

static int code_at(const history *h, int64_t index, uint64_t first) {
    return index >= 0 && (uint64_t)index < first ? h->codes[index] : 0;
}

static unsigned magnitude(const history *h, int code) {
    return h->weigh ? (unsigned)(code < 0 ? -code : code) : code != 0;
}

static unsigned signed_level(int code) { return bit_length((unsigned)(code < 0 ? -code : code)) * 2 - (code < 0); }

static void history_contexts(const history *h, uint64_t first, uint64_t last) {
    uint64_t i;
    for (i = first; i < last; i++) {
        uint16_t *c = h->contexts + (i - first) * W_CONTEXTS;
        int64_t here = (int64_t)i, row = (int64_t)h->row, filter = (int64_t)h->filter;
        unsigned column = level(h->sums[0][i % h->row], h->seen[0][i % h->row]);
        unsigned spot = level(h->sums[1][i % h->filter], h->seen[1][i % h->filter]);
        unsigned whole = level(h->sums[2][i / h->filter], h->seen[2][i / h->filter]);
        int above = code_at(h, here - row, first);
        int over = code_at(h, here - (filter > row ? filter : 2 * row), first);
        unsigned around = level((uint64_t)magnitude(h, above) + magnitude(h, over) +
                                    magnitude(h, code_at(h, here - row - 1, first)) +
                                    magnitude(h, code_at(h, here - row + 1, first)), 4);
        c[0] = 0;
        c[1] = (uint16_t)column;
        c[2] = (uint16_t)spot;
        c[3] = (uint16_t)whole;
        c[4] = (uint16_t)((whole >> 1) * 16 + (column >> 1));
        c[5] = (uint16_t)((whole >> 1) * 16 + (spot >> 1));
        c[6] = (uint16_t)(signed_level(above) * 18 + signed_level(over));
        c[7] = (uint16_t)((whole >> 2) * 64 + (spot >> 2) * 8 + (column >> 2));
        c[8] = (uint16_t)(around * 32 + whole);
    }
}

/* Decisions of `count` codes of the batch, at `places`; `lengths`: each has stage `stage` + its length, if given. */
static void codes_bits(codes_model *m, const logistic *l, ans *a, const history *h, unsigned stage,
                       const uint32_t *places, uint32_t count, const uint8_t *lengths) {
    int64_t steps[W_STAGES][W_CONTEXTS];
    uint32_t members[W_STAGES], i, k;
    unsigned c, s;
    memset(steps, 0, sizeof steps);
    memset(members, 0, sizeof members);
    for (i = 0; i < count; i++) {
        const uint16_t *context = h->contexts + (size_t)places[i] * W_CONTEXTS;
        int64_t mixed = 0, error;
        int32_t stretched[W_CONTEXTS], guess;
        s = stage + (lengths ? lengths[places[i]] : 0);
        for (c = 0; c < W_CONTEXTS; c++) {
            uint32_t slot = (c * W_STAGES + s) * W_VALUES + context[c];
            uint64_t ones = m->counts[1][slot], seen = m->counts[0][slot] + ones;
            stretched[c] = l->stretch[((2 * ones + 1) << 12) / (2 * seen + 2)];
            mixed += m->weights[s][c] * stretched[c];
        }
        guess = squash(l, floor_shift(mixed, 16));
        h->flags[places[i]] = (uint8_t)ans_bit(a, (uint32_t)guess);
        error = (int64_t)h->flags[places[i]] * 65536 - guess;
        for (c = 0; c < W_CONTEXTS; c++) steps[s][c] += stretched[c] * error;
        members[s]++;
    }
    for (s = 0; s < W_STAGES; s++) {
        unsigned length = bit_length(members[s]), shift = 17 + (length > 4 ? length - 4 : 0);
        for (c = 0; members[s] && c < W_CONTEXTS; c++) m->weights[s][c] += floor_shift(steps[s][c], shift);
    }
    for (k = 0; k < 2; k++)
        for (i = 0; i < count; i++) {
            s = stage + (lengths ? lengths[places[i]] : 0);
            for (c = 0; c < W_CONTEXTS; c++) {
                uint32_t slot = (c * W_STAGES + s) * W_VALUES + h->contexts[(size_t)places[i] * W_CONTEXTS + c];
                if (!k) m->counts[h->flags[places[i]]][slot]++;
                while (k && m->counts[0][slot] + m->counts[1][slot] > W_LIMIT) {
                    m->counts[0][slot] = (m->counts[0][slot] + 1) >> 1;
                    m->counts[1][slot] = (m->counts[1][slot] + 1) >> 1;
                }
            }
        }
}

static void codes_batch(codes_model *m, const logistic *l, ans *a, const history *h, uint64_t first, uint32_t count,
                        unsigned top) {
    uint32_t i, some = 0, growing, place;
    unsigned length;
    for (i = 0; i < count; i++) h->some[i] = i;
    codes_bits(m, l, a, h, 0, h->some, count, NULL);
    for (i = 0; i < count; i++) {
        h->codes[first + i] = 0;
        if (h->flags[i]) h->some[some++] = i;
    }
    if (!some) return;
    codes_bits(m, l, a, h, W_SIGN, h->some, some, NULL);
    for (i = 0; i < some; i++) {
        place = h->some[i];
        h->codes[first + place] = h->flags[place] ? -1 : 1;
        h->bits[place] = 0;
        h->found[place] = 1;
        h->growing[i] = place;
    }
    for (length = 1, growing = some; length <= top && growing; length++) {
        uint32_t kept = 0;
        codes_bits(m, l, a, h, W_LARGER + length - 1, h->growing, growing, NULL);
        for (i = 0; i < growing; i++)
            if (h->flags[h->growing[i]]) {
                h->bits[h->growing[i]] = (uint8_t)length;
                h->growing[kept++] = h->growing[i];
            }
        growing = kept;
    }
    for (length = 0; length < top; length++) {
        uint32_t here = 0;
        for (i = 0; i < some; i++)
            if (h->bits[h->some[i]] > length) h->growing[here++] = h->some[i];
        if (!here) break;
        if (length < 2) codes_bits(m, l, a, h, length ? W_LOWER : W_UPPER, h->growing, here, h->bits);
        for (i = 0; i < here; i++) {
            place = h->growing[i];
            if (length >= 2) h->flags[place] = (uint8_t)ans_bit(a, 32768);
            h->found[place] = h->found[place] << 1 | h->flags[place];
        }
    }
    for (i = 0; i < some; i++) {
        place = h->some[i];
        h->codes[first + place] = (int16_t)(h->codes[first + place] * (int)h->found[place]);
    }
}

static void *zeros(uint64_t count, size_t size) { return calloc((size_t)(count ? count : 1), size); }

static void history_close(history *h) {
    int i;
    for (i = 0; i < 3; i++) free(h->sums[i]), free(h->seen[i]);
    free(h->codes), free(h->contexts), free(h->some), free(h->growing), free(h->bits), free(h->flags), free(h->found);
}

static int history_open(history *h, uint64_t batch) {
    uint64_t sizes[3];
    int i, whole = 1;
    sizes[0] = h->row;
    sizes[1] = h->filter;
    sizes[2] = (h->count + h->filter - 1) / h->filter;
    for (i = 0; i < 3; i++) {
        h->sums[i] = zeros(sizes[i], 4);
        h->seen[i] = zeros(sizes[i], 4);
        whole = whole && h->sums[i] && h->seen[i];
    }
    h->codes = zeros(h->count, 2);
    h->contexts = zeros(batch, 2 * W_CONTEXTS);
    h->some = zeros(batch, 4);
    h->growing = zeros(batch, 4);
    h->found = zeros(batch, 4);
    h->bits = zeros(batch, 1);
    h->flags = zeros(batch, 1);
    return whole && h->codes && h->contexts && h->some && h->growing && h->found && h->bits && h->flags;
}

static int codes_read(codes_model *m, const logistic *l, ans *a, reader *fields, form *f) {
    history h;
    uint64_t zero = number(fields, f->kinds - 1), most = f->count ? f->count : 1, first, i, batch;
    unsigned top, largest;
    int good;
    memset(&h, 0, sizeof h);
    h.count = f->count;
    h.row = number(fields, most);
    h.filter = number(fields, most);
    if (fields->bad || !h.row || !h.filter || h.filter > most / h.row || f->kinds > 256) return TFCP_DAMAGED;
    h.filter *= h.row;
    largest = (unsigned)(f->kinds - 1 - zero > zero ? f->kinds - 1 - zero : zero);
    top = largest ? bit_length(largest) - 1 : 0;
    h.weigh = top >= 3;
    batch = (h.count + W_BATCHES - 1) / W_BATCHES;
    if (batch < W_BATCH) batch = W_BATCH;
    good = history_open(&h, batch);
    for (first = 0; good && first < h.count; first += batch) {
        uint64_t last = first + batch < h.count ? first + batch : h.count;
        history_contexts(&h, first, last);
        codes_batch(m, l, a, &h, first, (uint32_t)(last - first), top);
        for (i = first; i < last; i++) {
            uint64_t groups[3];
            int k;
            groups[0] = i % h.row;
            groups[1] = i % h.filter;
            groups[2] = i / h.filter;
            for (k = 0; k < 3; k++) {
                h.sums[k][groups[k]] += magnitude(&h, h.codes[i]);
                h.seen[k][groups[k]]++;
            }
        }
    }
    for (i = 0; good && i < h.count; i++)
        if (h.codes[i] + (int64_t)zero < 0 || !form_put(f, i, (uint64_t)(h.codes[i] + (int64_t)zero))) break;
    history_close(&h);
    return !good ? TFCP_NO_MEMORY : i < h.count ? TFCP_DAMAGED : TFCP_OK;
}

/* ---- tensors.py ----------------------------------------------------------------------------------------------------------- */

enum { RAW, DENSE, GAPS, BITMAP, PLANES, MIXED, LZMA_TENSOR, SPREAD };

typedef struct {
    logistic l;
    bytes_model bytes;
    codes_model codes;
    form f;
    stream first, second;
    ans decisions;
    uint64_t mixed; /* codes by contexts so far: each takes time */
} state;

/* Byte 0 of all values, byte 1, ...; of `written` values only, with gaps between them, if `spread` is where those begin. */
static int planes_read(state *s, reader *fields, reader *payload, uint8_t *out, uint64_t length, const reader *spread,
                       uint64_t written) {
    unsigned size = take_byte(fields), rotated = take_byte(fields), plane;
    uint64_t i, count, place;
    if (fields->bad || (size != 2 && size != 4 && size != 8) || rotated > (size < 8) || length % size) return 0;
    count = length / size;
    if (spread) memset(out, 0, (size_t)length);
    if (!spread) written = count;
    for (plane = 0; plane < size; plane++) {
        reader gaps[2]; /* the gaps are read again for each plane: nothing needs to be kept */
        if (spread) memcpy(gaps, spread, sizeof gaps);
        if (spread && !stream_open(&s->second, &gaps[0], &gaps[1], written)) return 0;
        if (!stream_open(&s->first, fields, payload, written)) return 0;
        for (place = i = 0; i < written; i++, place++) {
            uint64_t value = stream_next(&s->first), gap = spread ? stream_next(&s->second) : 0;
            if (value > 255 || s->first.bad || (spread && s->second.bad) || gap >= count - place) return 0;
            place += gap;
            out[place * size + plane] = (uint8_t)value;
        }
    }
    for (i = 0; rotated && i < count; i++) {
        uint8_t *p = out + i * size;
        uint32_t value = size == 4 ? little(p) : (uint32_t)p[0] | (uint32_t)p[1] << 8;
        put(p, value >> 1 | (value & 1) << (size * 8 - 1), size);
    }
    return 1;
}

static int spread_read(state *s, reader *fields, reader *payload, uint8_t *out, uint64_t length) {
    uint64_t written = number(fields, length);
    reader gaps[2];
    gaps[0] = *fields;
    gaps[1] = *payload;
    if (fields->bad || written > length / 2 || !stream_open(&s->second, fields, payload, written)) return 0;
    return take_byte(fields) == PLANES && planes_read(s, fields, payload, out, length, gaps, written);
}

static int sparse_read(state *s, reader *fields, reader *payload, int bitmap) {
    uint64_t zero = number(fields, s->f.kinds - 1), written = number(fields, s->f.count), place = 0, i, next;
    const uint8_t *flags = bitmap ? take(payload, (s->f.count + 7) / 8) : NULL;
    if (fields->bad || payload->bad) return 0;
    if (!bitmap && !stream_open(&s->first, fields, payload, written)) return 0;
    if (!stream_open(&s->second, fields, payload, written)) return 0;
    for (i = 0; i < written; i++, place++) {
        next = place;
        if (!bitmap) next += stream_next(&s->first);
        while (bitmap && next < s->f.count && !(flags[next >> 3] >> (7 - (next & 7)) & 1)) next++;
        if (next >= s->f.count || next < place || (!bitmap && s->first.bad)) return 0;
        for (; place < next; place++) form_put(&s->f, place, zero);
        if (!form_put(&s->f, place, stream_next(&s->second)) || s->second.bad) return 0;
    }
    for (; place < s->f.count; place++) {
        if (bitmap && flags[place >> 3] >> (7 - (place & 7)) & 1) return 0;
        form_put(&s->f, place, zero);
    }
    return 1;
}

static int tensor_read(state *s, reader *fields, reader *payload, uint8_t *out, uint64_t length) {
    unsigned kind = take_byte(fields);
    uint64_t i;
    const uint8_t *found;
    if (fields->bad) return TFCP_DAMAGED;
    if (kind == RAW) {
        found = take(payload, length);
        if (found) memcpy(out, found, (size_t)length);
        return found ? TFCP_OK : TFCP_DAMAGED;
    }
    if (kind == PLANES) return planes_read(s, fields, payload, out, length, NULL, 0) ? TFCP_OK : TFCP_DAMAGED;
    if (kind == SPREAD) return spread_read(s, fields, payload, out, length) ? TFCP_OK : TFCP_DAMAGED;
    if (kind == LZMA_TENSOR) {
        unsigned lc = take_byte(fields), lp = take_byte(fields), pb = take_byte(fields);
        uint64_t packed = number(fields, ANY);
        found = take(payload, packed);
        return lzma_read(found, packed, out, (size_t)length, lc, lp, pb) ? TFCP_OK : TFCP_DAMAGED;
    }
    if (kind > MIXED || !form_open(&s->f, fields, payload, out, length)) return TFCP_DAMAGED;
    if (kind == MIXED) {
        if (s->f.count > W_MOST - s->mixed) return TFCP_DAMAGED;
        s->mixed += s->f.count;
        return codes_read(&s->codes, &s->l, &s->decisions, fields, &s->f);
    }
    if (kind != DENSE) return sparse_read(s, fields, payload, kind == BITMAP) ? TFCP_OK : TFCP_DAMAGED;
    if (!stream_open(&s->first, fields, payload, s->f.count)) return TFCP_DAMAGED;
    for (i = 0; i < s->f.count; i++)
        if (!form_put(&s->f, i, stream_next(&s->first)) || s->first.bad) return TFCP_DAMAGED;
    return TFCP_OK;
}

/* ---- pack.py and container.py ---------------------------------------------------------------------------------------------- */

typedef struct {
    unsigned coder;
    uint64_t size, head, main, mixed, rest;
    uint32_t checksum;
} header;

static int header_read(header *h, reader *r, size_t packed_size) {
    const uint8_t *magic = take(r, 4), *checksum;
    if (!magic || memcmp(magic, "TFCP", 4)) return TFCP_NOT_TFCP;
    h->coder = take_byte(r) - 16u;
    checksum = take(r, 4);
    h->checksum = checksum ? little(checksum) : 0;
    h->size = number(r, (uint64_t)packed_size << 14);
    h->head = number(r, ANY);
    h->main = number(r, ANY);
    h->mixed = number(r, ANY);
    h->rest = h->coder ? number(r, h->size) : 0;
    if (r->bad || h->coder > 1 || h->size >= SIZE_MAX) return TFCP_DAMAGED;
    if (h->rest >= SIZE_MAX || h->head >= SIZE_MAX - h->rest) return TFCP_DAMAGED; /* what is allocated, on 32 bits too */
    return TFCP_OK;
}

static uint32_t crc32_of(const uint8_t *at, size_t size, uint32_t before) {
    uint32_t table[256], crc = ~before, i, k;
    for (i = 0; i < 256; i++) {
        table[i] = i;
        for (k = 0; k < 8; k++) table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xEDB88320u : table[i] >> 1;
    }
    while (size--) crc = crc >> 8 ^ table[(crc ^ *at++) & 255];
    return ~crc;
}

typedef struct {
    arithmetic a;       /* coder 0 */
    reader plain;       /* coder 1 */
    uint64_t left;
} parts;

/* The next bytes of the main stream to `to`, which stand at `place` in the file. */
static int parts_take(parts *p, state *s, unsigned coder, uint8_t *to, uint64_t count, uint64_t place) {
    uint64_t i;
    if (coder) {
        const uint8_t *found = take(&p->plain, count);
        if (found) memcpy(to, found, (size_t)count);
        return found != NULL;
    }
    if (count > p->left) return 0;
    p->left -= count;
    for (i = 0; i < count; i++) to[i] = bytes_code(&s->bytes, &s->l, &p->a, 0, (unsigned)(place + i) & 3);
    return 1;
}

/* The ranges of the tensors: what is around them is unpacked (`p`), or the tensors themselves (`tensors`). */
static int ranges(state *s, const header *h, reader *list, reader *tensors, reader *payload, parts *p, uint8_t *out) {
    uint64_t count = number(list, h->size), i, end = 0;
    for (i = 0; i < count; i++) {
        uint64_t gap = number(list, h->size - end), length = number(list, h->size);
        if (list->bad || (p && !parts_take(p, s, h->coder, out + end, gap, end))) return TFCP_DAMAGED;
        end += gap;
        if (!length && gap >= 4) length = little(out + end - 4);
        if (!length || length > h->size - end) return TFCP_DAMAGED;
        if (tensors) {
            int error = tensor_read(s, tensors, payload, out + end, length);
            if (error) return error;
        }
        end += length;
    }
    if (list->bad || (p && !parts_take(p, s, h->coder, out + end, h->size - end, end))) return TFCP_DAMAGED;
    return TFCP_OK;
}

static int unpack_with(state *s, const header *h, reader *r, const uint8_t *packed, size_t packed_size, uint8_t *plain,
                       uint8_t *out) {
    const uint8_t *main_stream = take(r, h->main), *mixed_stream = take(r, h->mixed);
    reader fields, list;
    parts p;
    size_t i;
    int error;
    if (r->bad || !ans_open(&s->decisions, mixed_stream, h->mixed)) return TFCP_DAMAGED;
    memset(&p, 0, sizeof p);
    logistic_fill(&s->l);
    memset(&s->codes, 0, sizeof s->codes);
    s->mixed = 0;
    for (i = 0; i < W_STAGES * W_CONTEXTS; i++) s->codes.weights[i / W_CONTEXTS][i % W_CONTEXTS] = W_FIRST;
    if (h->coder) {
        if (!lzma_read(main_stream, h->main, plain, (size_t)(h->head + h->rest), 0, 2, 2)) return TFCP_DAMAGED;
        p.plain.at = plain + h->head;
        p.plain.end = p.plain.at + h->rest;
    } else {
        bytes_open(&s->bytes, &s->l);
        arithmetic_open(&p.a, main_stream, h->main);
        p.left = B_MOST;
        if (!parts_take(&p, s, 0, plain, h->head, 0)) return TFCP_DAMAGED;
    }
    fields.at = plain;
    fields.end = plain + h->head;
    fields.bad = 0;
    list = fields;
    error = ranges(s, h, &fields, NULL, NULL, &p, out);
    if (!error) error = ranges(s, h, &list, &fields, r, NULL, out); /* the tensors are described behind their ranges */
    if (error) return error;
    /* the checksum is of the original and, going on from there, of all packed bytes behind it */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    (void)crc32_of, (void)packed, (void)packed_size;
    return TFCP_OK;
#else
    return crc32_of(packed + 9, packed_size - 9, crc32_of(out, (size_t)h->size, 0)) == h->checksum ? TFCP_OK : TFCP_DAMAGED;
#endif
}

int64_t tfcp_unpacked_size(const uint8_t *packed, size_t size) {
    header h;
    reader r;
    int error;
    r.at = packed;
    r.end = packed + size;
    r.bad = 0;
    error = header_read(&h, &r, size);
    return error ? error : (int64_t)h.size;
}

int tfcp_unpack(const uint8_t *packed, size_t size, uint8_t *out, size_t out_size) {
    header h;
    reader r;
    state *s;
    uint8_t *plain;
    int error;
    r.at = packed;
    r.end = packed + size;
    r.bad = 0;
    error = header_read(&h, &r, size);
    if (error) return error;
    if (out_size != h.size) return TFCP_WRONG_SIZE;
    if (h.head > 2 * h.size + 64 || (!h.coder && h.head > B_MOST)) return TFCP_DAMAGED;
    s = malloc(sizeof *s);
    plain = malloc((size_t)(h.head + h.rest + 1));
    error = s && plain ? unpack_with(s, &h, &r, packed, size, plain, out) : TFCP_NO_MEMORY;
    free(s);
    free(plain);
    return error;
}

const char *tfcp_error(int error) {
    switch (error) {
    case TFCP_OK: return "unpacked";
    case TFCP_NOT_TFCP: return "not a .tfcp file: it does not begin with TFCP";
    case TFCP_DAMAGED: return "a damaged .tfcp file: it was cut off or changed";
    case TFCP_NO_MEMORY: return "not enough memory";
    case TFCP_WRONG_SIZE: return "out_size is not what tfcp_unpacked_size says";
    default: return "unknown error";
    }
}

#ifdef TFCP_MAIN
#include <stdio.h>

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *content = NULL;
    long length;
    *size = 0;
    if (!file) return NULL;
    if (!fseek(file, 0, SEEK_END) && (length = ftell(file)) >= 0 && !fseek(file, 0, SEEK_SET)) {
        content = malloc((size_t)length + 1);
        if (content) *size = fread(content, 1, (size_t)length, file);
    }
    fclose(file);
    return content;
}

int main(int argc, char **argv) {
    size_t size;
    uint8_t *packed, *out = NULL;
    int64_t length;
    int error;
    FILE *file;
    if (argc != 3) {
        fprintf(stderr, "usage: unpack IN.tfcp OUT.tflite\n");
        return 2;
    }
    if (!strcmp(argv[1], argv[2])) {
        fprintf(stderr, "error: OUT.tflite is IN.tfcp: %s\n", argv[1]);
        return 2;
    }
    packed = read_file(argv[1], &size);
    if (!packed) {
        fprintf(stderr, "error: can't read %s\n", argv[1]);
        return 2;
    }
    length = tfcp_unpacked_size(packed, size);
    error = length < 0 ? (int)length : TFCP_OK;
    if (!error && !(out = malloc((size_t)length + 1))) error = TFCP_NO_MEMORY;
    if (!error) error = tfcp_unpack(packed, size, out, (size_t)length);
    if (error) {
        fprintf(stderr, "error: %s: %s\n", argv[1], tfcp_error(error));
    } else if (!(file = fopen(argv[2], "wb")) || fwrite(out, 1, (size_t)length, file) != (size_t)length || fclose(file)) {
        fprintf(stderr, "error: can't write %s\n", argv[2]);
        error = 1;
    }
    free(packed);
    free(out);
    return error ? 1 : 0;
}
#endif
