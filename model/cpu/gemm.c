/* Matrix products on the CPU: cut into tiles that depend on the shape alone, each one call of a
 * single-threaded BLAS, whichever thread takes it. (A threaded BLAS cuts by the number of threads and gives
 * other bits.) */
#include "model/cpu/device.h"

#include <cblas.h>

#include <string.h>

/* Tiles of about 256 x 256 lose nothing against whole matrices on one core; a product of few tiles is cut
 * finer, so that several threads share it, down to tiles that still run well. */
enum { TILE = 256, SMALLEST_TILE = 96, ENOUGH_TILES = 12, TILE_ALIGN = 16 };

typedef struct cut {
    const lt_gemm *gemm;
    int64_t rows, columns; /* of a tile */
    int64_t row_tiles, column_tiles;
} cut;

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static void cut_into_tiles(const lt_gemm *gemm, cut *result) {
    int64_t row_parts = divide_up(gemm->m, TILE), column_parts = divide_up(gemm->n, TILE);
    while (row_parts * column_parts < ENOUGH_TILES) {
        int64_t rows = divide_up(gemm->m, row_parts), columns = divide_up(gemm->n, column_parts);
        if (rows < 2 * SMALLEST_TILE && columns < 2 * SMALLEST_TILE) break;
        if (rows >= columns)
            row_parts++;
        else
            column_parts++;
    }
    result->gemm = gemm;
    result->rows = divide_up(divide_up(gemm->m, row_parts), TILE_ALIGN) * TILE_ALIGN;
    result->columns = divide_up(divide_up(gemm->n, column_parts), TILE_ALIGN) * TILE_ALIGN;
    result->row_tiles = divide_up(gemm->m, result->rows);
    result->column_tiles = divide_up(gemm->n, result->columns);
}

static void multiply_tile(void *context, int64_t index, int worker) {
    (void)worker;
    const cut *tiles = context;
    const lt_gemm *g = tiles->gemm;
    const int64_t row = index / tiles->column_tiles * tiles->rows,
                  column = index % tiles->column_tiles * tiles->columns;
    const int64_t m = g->m - row < tiles->rows ? g->m - row : tiles->rows;
    const int64_t n = g->n - column < tiles->columns ? g->n - column : tiles->columns;
    const float *a = floats_of(g->a) + (g->a_transposed ? row : row * g->lda);
    const float *b = floats_of(g->b) + (g->b_transposed ? column * g->ldb : column);
    float *c = floats_of(g->c) + row * g->ldc + column;
    const bool adds = g->addend.address != NULL;
    const float *addend = adds ? floats_of(g->addend) + row * g->ldc + column : c;
    for (int64_t i = 0; addend != c && i < m; i++)
        memcpy(c + i * g->ldc, addend + i * g->ldc, sizeof *c * (size_t)n);
    cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                g->b_transposed ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)g->k, 1.0f, a,
                (blasint)g->lda, b, (blasint)g->ldb, adds ? 1.0f : 0.0f, c, (blasint)g->ldc);
}

void lt_cpu_gemm(lt_device *device, const lt_gemm *gemm) {
    cut tiles;
    cut_into_tiles(gemm, &tiles);
    lt_pool_run(cpu_of(device)->pool, tiles.row_tiles * tiles.column_tiles, multiply_tile, &tiles);
}

void lt_cpu_blas_multiply(const lt_gemm *gemm) {
    multiply_tile(
        &(cut){.gemm = gemm, .rows = gemm->m, .columns = gemm->n, .row_tiles = 1, .column_tiles = 1}, 0, 0);
}

void lt_cpu_blas_use_one_thread(void) {
    openblas_set_num_threads(1);
}

const char *lt_cpu_blas_kernel(void) {
    return openblas_get_corename();
}
