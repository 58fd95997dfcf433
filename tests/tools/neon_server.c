// Runs ggq's NEON kernels for tests/tools/neon_check.py: requests on stdin, outputs on stdout.
// A request is 13 int64 (below) and the bytes of weights, input, bias and residual.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef void kernel(int64_t args, int64_t first, int64_t last);
extern kernel *const kernels[];

enum { KERNEL, FIRST, LAST, INPUT_SIZE, OUTPUT_SIZE, BIAS_SIZE, RESIDUAL_SIZE,
       ROW_BYTES, N_ROWS, N_COLS, INPUT_STRIDE, OUTPUT_STRIDE, TOKENS, FIELDS };

// Reads n bytes to the end of a mapping: whoever reads beyond them crashes.
static char *receive(int64_t n) {
    if (n == 0) return NULL;
    const int64_t page = 65536, length = (n + page - 1) / page * page;
    char *base = mmap(NULL, length + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + length, page, PROT_NONE)) exit(3);
    char *data = base + length - n;
    if (fread(data, 1, n, stdin) != (size_t)n) exit(4);
    return data;
}

static void release(char *data, int64_t n) {
    const int64_t page = 65536, length = (n + page - 1) / page * page;
    if (data) munmap(data + n - length, length + page);
}

int main(void) {
    int64_t f[FIELDS];
    while (fread(f, sizeof f, 1, stdin) == 1) {
        const int64_t weight_size = f[ROW_BYTES] * f[N_ROWS];
        char *weights = receive(weight_size), *input = receive(f[INPUT_SIZE]);
        char *bias = receive(f[BIAS_SIZE]), *residual = receive(f[RESIDUAL_SIZE]);
        char *output = malloc(f[OUTPUT_SIZE]);
        memset(output, 0xFF, f[OUTPUT_SIZE]);
        int64_t state[1] = {f[TOKENS]};
        int64_t args[11] = {(int64_t)weights, f[ROW_BYTES], f[N_ROWS], f[N_COLS], (int64_t)input,
                            f[INPUT_STRIDE], (int64_t)output, f[OUTPUT_STRIDE], (int64_t)bias,
                            (int64_t)residual, (int64_t)state};
        kernels[f[KERNEL]]((int64_t)args, f[FIRST], f[LAST]);
        if (fwrite(output, 1, f[OUTPUT_SIZE], stdout) != (size_t)f[OUTPUT_SIZE]) return 5;
        fflush(stdout);
        free(output);
        release(weights, weight_size), release(input, f[INPUT_SIZE]);
        release(bias, f[BIAS_SIZE]), release(residual, f[RESIDUAL_SIZE]);
    }
    return 0;
}
