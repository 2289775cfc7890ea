/* What a device must do: the table of operations that the model is written in.
 *
 * Memory on a device is an lt_mem, which the host never dereferences. Operations are queued on the device's
 * one ordered stream; they cannot fail on their own, a device reports its errors from synchronise() and
 * download(). The model reads results only at the end of a step. Shapes are row-major; "rows" are tokens of a
 * micro-batch. An operation marked `+=` adds to its output, others overwrite it. Every operation gives the
 * same bits for the same inputs, whatever the number of threads.
 *
 * Element types: activations and the matrices that they meet have the device's compute type, float32 on a CPU
 * and bfloat16 on a GPU. Weights of norms, tau, biases, all gradients of parameters and what AdamW works on
 * are float32 whatever the compute type, losses and statistics as written here.
 */
#ifndef LT_MODEL_OPS_H
#define LT_MODEL_OPS_H

#include "comm/status.h"
#include "model/shape.h"

#include <stddef.h>
#include <stdint.h>

typedef enum lt_type { LT_FLOAT32, LT_FLOAT64, LT_INT32, LT_BYTES, LT_BFLOAT16 } lt_type;

static inline size_t lt_type_bytes(lt_type type) {
    return type == LT_FLOAT64 ? 8 : type == LT_BYTES ? 1 : type == LT_BFLOAT16 ? 2 : 4;
}

/* A place in device memory and the type of what lies there. */
typedef struct lt_mem {
    unsigned char *address; /* on the device */
    lt_type type;
} lt_mem;

/* The place `elements` further on. */
static inline lt_mem lt_at(lt_mem mem, int64_t elements) {
    mem.address += (size_t)elements * lt_type_bytes(mem.type);
    return mem;
}

/* Elements of a piece of a flat array: what sum_squares() gives one sum for. AdamW over whole pieces has the
 * bits of AdamW over all of the array. */
enum { LT_FLAT_PIECE = 32768 };

static inline int64_t lt_flat_pieces(int64_t count) {
    return (count + LT_FLAT_PIECE - 1) / LT_FLAT_PIECE;
}

/* Elements [first, first + count) of flat arrays, at most LT_FLAT_PIECE of one parameter, and which of
 * LT_ADAMW_GROUPS it is updated with. */
typedef struct lt_flat_piece {
    int64_t first;
    int32_t count, group;
} lt_flat_piece;

enum { LT_ADAMW_GROUPS = 4 };

static const lt_mem LT_NOWHERE = {NULL, LT_FLOAT32};

/* What a matrix has of a vocabulary that may be cut among ranks: tokens [first, first + count), in its first
 * `count` of `width` rows (of an embedding) or columns (of logits). The rest is padding. */
typedef struct lt_vocabulary {
    int64_t first, count, width;
} lt_vocabulary;

/* c [m, n] = a [m, k] b [k, n] (+ addend), with a and b of the compute type and c of that or float32, where a
 * and b are read transposed if they are stored so: a_transposed means that a lies as [k, m]. The addend lies
 * as c does, and is c itself or apart from it; address NULL: none. ld*: elements from one stored row to the
 * next. */
typedef struct lt_gemm {
    int64_t m, n, k;
    lt_mem a, b, c, addend;
    int64_t lda, ldb, ldc;
    bool a_transposed, b_transposed;
} lt_gemm;

/* Attention of `batch` rows (lazy-attention.md, "Forward"). Query i of Tq stands at position Tk - Tq + i
 * among the Tk keys, so the same operation serves training (Tq = Tk) and decoding with a cache (Tq < Tk). */
typedef struct lt_attention {
    int64_t batch, query_length, key_length, heads, key_heads, head_size;
    int64_t bias_length; /* W; 0: no bias and no tau (softmax attention) */
    lt_mem q, k,
        v; /* token t of row b lies at (b * length + t) * stride; heads side by side; already rotated */
    int64_t query_stride, key_stride;
    lt_mem bias, tau;       /* float32 [heads, W] and [heads]; unused when bias_length is 0 */
    lt_mem document_starts; /* int32 [batch, Tq]: first key each query may see; address NULL: 0 for all */
    lt_mem output;          /* [batch * Tq, heads * head_size] */
    lt_mem saved;           /* attention_saved_bytes(): what forward keeps for backward */
} lt_attention;

typedef struct lt_attention_gradients {
    lt_mem d_output;      /* [batch * Tq, heads * head_size] */
    lt_mem d_q, d_k, d_v; /* strides as q, k, v */
    lt_mem d_bias, d_tau; /* += */
} lt_attention_gradients;

/* Sums over the rows of one head that attention_statistics() gives, as doubles [heads, LT_STATISTICS]. */
enum {
    LT_STAT_VISIBLE,    /* visible (query, key) pairs */
    LT_STAT_ZEROS,      /* of these, weights that are exactly 0 */
    LT_STAT_MASS,       /* sum of all weights */
    LT_STAT_ROWS,       /* queries */
    LT_STAT_SINK,       /* sum of the weight on the first visible key, over queries that see more than one */
    LT_STAT_SINK_ROWS,  /* these queries */
    LT_STAT_TILES,      /* tiles with a visible pair */
    LT_STAT_LIVE_TILES, /* of these, tiles with a weight above 0 */
    LT_STATISTICS,
};

/* The loss where the vocabulary is cut among `ranks` ranks: each gives three numbers a row, all ranks get
 * them, and each makes of them the losses and the gradients of its own logits. */
typedef struct lt_cut_loss {
    int64_t rows;
    int rank, ranks;
    lt_vocabulary vocabulary; /* of this rank; it may be empty */
    lt_mem logits;            /* [rows, vocabulary.width] */
    lt_mem targets;           /* int32 [rows] */
    lt_mem parts;             /* float64 [ranks, rows, LT_LOSS_PARTS] */
    bool gradient;
    double scale;  /* of the gradients */
    lt_mem losses; /* float64 [rows] */
} lt_cut_loss;

enum {
    LT_LOSS_LARGEST, /* logit */
    LT_LOSS_SUM,     /* of exp(logit - largest) */
    LT_LOSS_TARGET,  /* the target's logit; 0 where another rank has it */
    LT_LOSS_PARTS,
};

typedef struct lt_adamw {
    double learning_rate, beta1, beta2, epsilon, weight_decay;
    double bias_correction1, bias_correction2; /* 1 - beta^step */
    double gradient_scale;                     /* of clipping */
    bool frozen;                               /* nothing changes */
} lt_adamw;

typedef struct lt_device lt_device;

typedef struct lt_ops {
    /* Memory. allocate() gives zeroed memory; LT_IO with the size asked for where there is none, of a
     * GPU LT_BAD_INPUT. What upload() took may change when it has returned. */
    lt_status (*allocate)(lt_device *, size_t bytes, lt_mem *mem);
    void (*release)(lt_device *, lt_mem mem, size_t bytes);
    void (*upload)(lt_device *, lt_mem to, const void *from, int64_t count);
    lt_status (*download)(lt_device *, void *to, lt_mem from, int64_t count); /* waits for the stream */
    void (*copy)(lt_device *, lt_mem to, lt_mem from, int64_t count);         /* of one type */
    void (*round_to)(lt_device *, lt_mem to, lt_mem from, int64_t count); /* float32 to the compute type */
    void (*zero)(lt_device *, lt_mem mem, int64_t count);
    lt_status (*synchronise)(lt_device *);

    /* Scratch that the device keeps for itself: reserve() is called with the largest need of any operation,
     * for attention of this shape, matrices of rows x hidden and flat arrays of up to `largest` elements. */
    size_t (*scratch_bytes)(lt_device *, const lt_attention *, int64_t rows, int64_t hidden, int64_t largest);
    lt_status (*reserve)(lt_device *, size_t bytes);

    void (*gemm)(lt_device *, const lt_gemm *);

    /* out [rows, hidden] = weight [vocabulary, hidden] at tokens [rows]; d_weight += d_out at tokens, in
     * order of rows. Tokens outside the vocabulary give 0, and are passed over. */
    void (*embedding_forward)(lt_device *, lt_mem tokens, const lt_vocabulary *, lt_mem weight, int64_t rows,
                              int64_t hidden, lt_mem out);
    void (*embedding_backward)(lt_device *, lt_mem tokens, const lt_vocabulary *, lt_mem d_out, int64_t rows,
                               int64_t hidden, lt_mem d_weight);

    /* y = x / rms(x) * weight, rms = sqrt(mean(x^2) + epsilon); x, y [rows, hidden], inverse_rms [rows]. */
    void (*rmsnorm_forward)(lt_device *, lt_mem x, lt_mem weight, double epsilon, int64_t rows,
                            int64_t hidden, lt_mem y, lt_mem inverse_rms);
    /* d_x += and d_weight +=. */
    void (*rmsnorm_backward)(lt_device *, lt_mem x, lt_mem weight, lt_mem inverse_rms, lt_mem d_y,
                             int64_t rows, int64_t hidden, lt_mem d_x, lt_mem d_weight);

    /* Rotates `heads` neighbouring heads of every token in place (rotate-half convention) by the angles of
     * `table` [positions, head_size]: cos of the first half, then sin. Token t of a row of `length` tokens
     * takes the angles of position first + t; `inverse` rotates back (the backward pass). */
    void (*rope)(lt_device *, lt_mem x, int64_t stride, lt_mem table, int64_t rows, int64_t length,
                 int64_t first, int64_t heads, int64_t head_size, bool inverse);

    size_t (*attention_saved_bytes)(lt_device *, const lt_attention *);
    void (*attention_forward)(lt_device *, const lt_attention *);
    void (*attention_backward)(lt_device *, const lt_attention *, const lt_attention_gradients *);
    /* Of what forward has run on last: float64, +=. */
    void (*attention_statistics)(lt_device *, const lt_attention *, lt_mem statistics);

    /* out [rows, ffn] = silu(gate) * up, gate_up [rows, 2 ffn] with gate first. Backward gives out again. */
    void (*swiglu_forward)(lt_device *, lt_mem gate_up, int64_t rows, int64_t ffn, lt_mem out);
    void (*swiglu_backward)(lt_device *, lt_mem gate_up, lt_mem d_out, int64_t rows, int64_t ffn,
                            lt_mem d_gate_up, lt_mem out);

    /* losses [rows] (float64) = -log softmax(logits)[target], and, with `gradient`, logits = gradient *
     * scale; logits [rows, width], of which the first `vocabulary` columns count and the others become 0
     * then. */
    void (*cross_entropy)(lt_device *, lt_mem logits, lt_mem targets, int64_t rows, int64_t vocabulary,
                          int64_t width, double scale, bool gradient, lt_mem losses);
    /* The same in two halves for a cut vocabulary: the parts of this rank from its logits, which then hold
     * what the other half needs of them where a gradient is asked for; then losses and, with `gradient`,
     * logits = gradient * scale, 0 in the padding. */
    void (*cross_entropy_part)(lt_device *, const lt_cut_loss *);
    void (*cross_entropy_join)(lt_device *, const lt_cut_loss *);

    /* sums [segments] (float64) of `segments` runs of `length` doubles, each summed in order. */
    void (*sum_segments)(lt_device *, lt_mem values, int64_t segments, int64_t length, lt_mem sums);

    /* to += from, float32 or the compute type. */
    void (*add)(lt_device *, lt_mem to, lt_mem from, int64_t count);
    /* sums [count] (float64) of squares of float32 values, of each piece in a fixed order; `pieces` [count]
     * (lt_flat_piece) lie on the device. */
    void (*sum_squares)(lt_device *, lt_mem values, lt_mem pieces, int64_t count, lt_mem sums);
    /* One AdamW update of the float32 weights of all pieces (contracts.md, `optimizer.*`), each by the
     * options of its group. */
    void (*adamw)(lt_device *, lt_mem weights, lt_mem gradients, lt_mem m, lt_mem v, lt_mem pieces,
                  int64_t count, const lt_adamw groups[LT_ADAMW_GROUPS]);

    void (*destroy)(lt_device *);
} lt_ops;

struct lt_device {
    const lt_ops *ops;
    lt_type compute_type;
    bool in_host_memory;         /* the host may read and write what lies on it, between operations */
    int threads;                 /* of a CPU device; 1 elsewhere */
    const char *kind;            /* "cpu" */
    const char *instruction_set; /* "avx2" */
    const char *blas_kernel;     /* the BLAS's name of the kernel that it chose */
};

/* A CPU device with `threads` threads, the calling one included. The best instruction set is chosen unless
 * the environment variable LAZYTRAIN_ISA names another built one. LT_BAD_INPUT: that one is unknown here. */
lt_status lt_cpu_device_create(int threads, lt_device **device);

/* Gflop/s of single-threaded sgemm on all threads of a CPU device at once: the peak that utilisation is
 * against. Takes a few hundredths of a second. */
double lt_cpu_device_measure_gflops(lt_device *device);

#endif
