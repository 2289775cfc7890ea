#include "trainer/config_table.h"

#include <stdio.h>
#include <string.h>

/* Limits that keep every product of sizes (elements, bytes, tokens of a run) inside 64 bits, far above any
 * use. */
enum {
    MAX_HIDDEN = 1 << 17,
    MAX_INTERMEDIATE = 1 << 20,
    MAX_LAYERS = 1024,
    MAX_BATCH = 1 << 24,
    MAX_LENGTH = 1 << 24
};
#define MAX_STEPS INT64_C(1000000000000)
#define MAX_BYTES (INT64_C(1) << 60)

#define KEY(field, type_, default_, resume_, help_, ...) \
    { \
        .path = #field, .type = LT_KEY_##type_, .offset = offsetof(lt_config, field), .fallback = default_, \
        .resume = LT_RESUME_##resume_, .help = help_, __VA_ARGS__ \
    }
#define REQUIRED NULL, .required = true
#define FOLLOWS(text) NULL, .resolved = text
#define RANGE(low_, high_) .low = low_, .high = high_
#define FROM(minimum_, maximum_) .minimum = minimum_, .maximum = maximum_
#define ABOVE(minimum_, maximum_) .open_minimum = true, .minimum = minimum_, .maximum = maximum_
#define CHOICES(text) .choices = text
#define WORD(word_, empty_) .word = word_, .empty = empty_
#define TO_COME(capability_, available_) .capability = capability_, .available = available_
#define UNIT(text) .unit = text
#define PLAIN .unit = NULL

const lt_config_key lt_config_keys[] = {
    KEY(model.vocab_size, INTEGER, REQUIRED, NEVER, "token ids that the model knows", RANGE(2, INT32_MAX)),
    KEY(model.hidden_size, INTEGER, REQUIRED, NEVER,
        "width of the residual stream; num_heads times an even head size", RANGE(2, MAX_HIDDEN)),
    KEY(model.num_layers, INTEGER, REQUIRED, NEVER, "transformer blocks", RANGE(1, MAX_LAYERS)),
    KEY(model.num_heads, INTEGER, REQUIRED, NEVER, "query heads", RANGE(1, MAX_HIDDEN)),
    KEY(model.num_kv_heads, INTEGER, FOLLOWS("num_heads"), NEVER, "key and value heads; divides num_heads",
        RANGE(1, MAX_HIDDEN)),
    KEY(model.intermediate_size, INTEGER, REQUIRED, NEVER, "width inside the SwiGLU",
        RANGE(1, MAX_INTERMEDIATE)),
    KEY(model.rope_theta, NUMBER, "10000", NEVER, "base of the rotary position embedding", FROM(1, 1e12)),
    KEY(model.norm_eps, NUMBER, "1e-6", NEVER, "added to the mean square in RMSNorm", ABOVE(0, 1)),
    KEY(model.init_std, NUMBER, "0.02", NEVER,
        "standard deviation of every matrix and embedding at the start", FROM(0, 100)),
    KEY(model.tie_embeddings, BOOLEAN, "false", NEVER, "the head is the embedding", PLAIN),
    KEY(model.attention.kind, CHOICE, "lazy", NEVER, "softmax has no distance bias and no tau",
        CHOICES("lazy|softmax")),
    KEY(model.attention.bias_length, INTEGER, "512", NEVER, "distances that have a learned bias",
        UNIT("tokens"), RANGE(1, MAX_LENGTH)),
    KEY(model.attention.bias_init_std, NUMBER, "0.001", NEVER,
        "standard deviation of the distance bias at the start", FROM(0, 100)),
    KEY(model.attention.tau_init, NUMBER, "-1.0", NEVER, "Elastic-Softmax offset at the start",
        FROM(-1e6, 1e6)),

    KEY(data.train, SOURCES, REQUIRED, ALLOW,
        "token shards or text: a glob, folder or file, or a list of them; a list of {path: P, weight: W} is "
        "a mixture of sources",
        PLAIN),
    KEY(data.validation, SOURCES, "none", FREE, "the same for evaluation; a map of names makes several sets",
        WORD("none", 0)),
    KEY(data.seq_len, INTEGER, REQUIRED, NEVER, "length of a sample", UNIT("tokens"), RANGE(1, MAX_LENGTH)),
    KEY(data.shuffle, BOOLEAN, "true", ALLOW, "permute the samples anew each epoch", PLAIN),
    KEY(data.seed, INTEGER, "0", ALLOW, "seed of the permutation", RANGE(0, INT64_MAX)),
    KEY(data.tokenizer, STRING, "none", NEVER,
        "bytes (id 256 ends a document), a SentencePiece .model, a tokenizer.json or a folder with one, or "
        "{vocab: encoder.json, merges: vocab.bpe}; a resumed run may find it elsewhere, with the same "
        "contents",
        WORD("none", 0)),
    KEY(data.document_mask, BOOLEAN, "false", ALLOW, "attention stays inside a document", PLAIN),
    KEY(data.document_token, INTEGER, FOLLOWS("tokenizer's"), ALLOW,
        "id at document borders; by default the tokenizer's end of text, -1 without one",
        RANGE(-1, INT32_MAX)),
    KEY(data.document_token_position, CHOICE, "last", ALLOW,
        "the token opens (first) or ends (last) a document", CHOICES("first|last")),
    KEY(data.cache_dir, STRING, FOLLOWS("token_cache"), FREE,
        "folder of tokenised raw files, beside checkpoint.dir", PLAIN),
    KEY(data.cache_bytes, BYTES, "16 GiB", FREE,
        "most that whole files in the cache may take; what is being read stays", UNIT("bytes"),
        RANGE(0, MAX_BYTES)),
    KEY(data.text_key, STRING, "text", ALLOW, "field of raw records that holds the text", PLAIN),
    KEY(data.separator, STRING, "none", ALLOW, "text between the documents of a raw text file",
        WORD("none", 0)),
    KEY(data.filter.min_int_score, INTEGER, "none", ALLOW, "records with a lower int_score are left out",
        WORD("none", -1), RANGE(0, INT32_MAX)),
    KEY(data.filter.language, STRING, "none", ALLOW, "records of other languages are left out",
        WORD("none", 0)),
    KEY(data.filter.min_chars, INTEGER, "none", ALLOW, "shorter documents are left out", WORD("none", -1),
        UNIT("characters"), RANGE(0, MAX_BYTES)),
    KEY(data.filter.max_chars, INTEGER, "none", ALLOW, "longer documents are left out", WORD("none", -1),
        UNIT("characters"), RANGE(0, MAX_BYTES)),

    KEY(optimizer.lr, NUMBER, REQUIRED, ALLOW, "peak learning rate of AdamW", ABOVE(0, 1000)),
    KEY(optimizer.betas, PAIR, "[0.9, 0.95]", ALLOW, "decay of the two moments", FROM(0, 1),
        .open_maximum = true),
    KEY(optimizer.eps, NUMBER, "1e-8", ALLOW, "added to the root of the second moment", ABOVE(0, 1)),
    KEY(optimizer.weight_decay, NUMBER, "0.1", ALLOW,
        "of matrices; norms, embeddings, tau and bias do not decay", FROM(0, 1000)),
    KEY(optimizer.grad_clip, NUMBER, "1.0", ALLOW,
        "largest norm of the gradient of all trained parameters; 0: off", FROM(0, 1e9)),
    KEY(optimizer.lazy_lr_multiplier, NUMBER, "1.0", ALLOW, "scales the rate of tau and distance bias",
        FROM(0, 1e6)),
    KEY(optimizer.freeze_lazy_after, INTEGER, "never", ALLOW,
        "tau and distance bias stay as they are after this step", WORD("never", -1), RANGE(-1, MAX_STEPS)),

    KEY(schedule.kind, CHOICE, "cosine", ALLOW, "course of the learning rate after the warm-up",
        CHOICES("cosine|wsd|constant")),
    KEY(schedule.warmup_steps, INTEGER, "0", ALLOW, "linear rise to the peak", UNIT("steps"),
        RANGE(0, MAX_STEPS)),
    KEY(schedule.decay_steps, INTEGER, FOLLOWS("train.steps"), ALLOW,
        "cosine: the step that reaches the minimum; wsd: the length of the fall at the end of train.steps, "
        "by default "
        "a tenth of them",
        UNIT("steps"), RANGE(0, MAX_STEPS)),
    KEY(schedule.min_lr_ratio, NUMBER, "0.1", ALLOW, "the minimum, as a share of the peak", FROM(0, 1)),

    KEY(train.steps, INTEGER, REQUIRED, FREE, "updates of the run; 0: save the initial weights and stop",
        UNIT("steps"), RANGE(0, MAX_STEPS)),
    KEY(train.global_batch, INTEGER, REQUIRED, ALLOW, "samples of an update, over all ranks",
        UNIT("sequences"), RANGE(1, MAX_BATCH)),
    KEY(train.micro_batch, INTEGER, "1", FREE_BITS,
        "samples that a rank computes at once; divides global_batch", UNIT("sequences"), RANGE(1, MAX_BATCH)),
    KEY(train.seed, INTEGER, "0", ALLOW, "seed of the initial weights", RANGE(0, INT64_MAX)),
    KEY(train.device, CHOICE, "auto", FREE, "where the model is computed", CHOICES("auto|cpu|cuda")),
    KEY(train.threads, INTEGER, "auto", FREE,
        "threads of each rank; auto or 0: its share of the host's cores", WORD("auto", 0), RANGE(0, 4096)),
    KEY(train.recompute, CHOICE, "none", FREE,
        "what the backward pass computes again instead of keeping it: queries, keys, values and attention's "
        "output, or all but the input of each layer",
        CHOICES("none|attention|full")),
    KEY(train.eval_every, INTEGER, "0", FREE, "evaluate on data.validation; 0: never", UNIT("steps"),
        RANGE(0, MAX_STEPS)),
    KEY(train.eval_batches, INTEGER, "16", FREE, "global batches of an evaluation", RANGE(1, MAX_STEPS)),
    KEY(train.stall_timeout_s, NUMBER, "600", FREE,
        "the watchdog ends a run that stands still for so long; 0: off", UNIT("seconds"), FROM(0, 1e8)),
    KEY(train.max_minutes, NUMBER, "none", FREE, "wall-clock limit: save and exit with 75 as it nears",
        UNIT("minutes"), WORD("none", 0), FROM(0, 1e8)),
    KEY(train.nonfinite, CHOICE, "stop", FREE,
        "on a loss or gradient that is not finite; skip drops the update", CHOICES("stop|skip")),
    KEY(train.max_skips, INTEGER, "3", FREE, "updates that may be dropped in a row", RANGE(0, MAX_STEPS)),

    KEY(parallel.tensor, INTEGER, "1", FREE_BITS,
        "neighbouring ranks that share one copy of the model; divides the ranks, num_heads and "
        "intermediate_size, and divides num_kv_heads or is a multiple of it",
        RANGE(1, 65536)),
    KEY(parallel.zero, INTEGER, "0", FREE,
        "1: each data rank keeps the moments of a share of the parameters and updates it; the same bits",
        RANGE(0, 3)),
    KEY(parallel.lanes, INTEGER, FOLLOWS("up to 8"), FREE_BITS,
        "lanes of the deterministic sum: a power of two that divides global_batch / micro_batch; the most "
        "ranks that "
        "may share the data",
        WORD("auto", 0), RANGE(1, MAX_BATCH)),
    KEY(parallel.reduction, CHOICE, "tree", FREE_BITS,
        "sum of gradients over data ranks: along the lanes' tree, the same bits at any number of ranks; or "
        "as the MPI library likes",
        CHOICES("tree|fast")),
    KEY(parallel.backend, CHOICE, "auto", FREE,
        "what carries gradients and activations between GPUs: NCCL where every rank can load it, or MPI",
        CHOICES("auto|mpi|nccl")),

    KEY(checkpoint.dir, STRING, REQUIRED, FREE, "folder of the run: checkpoints, lock", PLAIN),
    KEY(checkpoint.every, INTEGER, "1000", FREE, "save; also at the last step and on a signal", UNIT("steps"),
        RANGE(1, MAX_STEPS)),
    KEY(checkpoint.keep, INTEGER, "3", FREE, "newest checkpoints that stay; 0: all", RANGE(0, MAX_STEPS)),
    KEY(checkpoint.keep_every, INTEGER, "0", FREE,
        "checkpoints of multiples of this step stay as well; 0: off", UNIT("steps"), RANGE(0, MAX_STEPS)),
    KEY(checkpoint.async, BOOLEAN, "false", FREE, "train on while a checkpoint is written from a copy",
        PLAIN),

    KEY(log.dir, STRING, FOLLOWS("checkpoint.dir"), FREE, "folder of metrics.jsonl", PLAIN),
    KEY(log.every, INTEGER, "10", FREE, "write a line of metrics", UNIT("steps"), RANGE(1, MAX_STEPS)),
    KEY(log.diagnostics_every, INTEGER, "0", FREE,
        "measure sparsity, sink, mass, tau and live tiles; 0: never", UNIT("steps"), RANGE(0, MAX_STEPS)),
    KEY(log.tensorboard, BOOLEAN, "false", FREE, "TensorBoard event files beside the metrics",
        TO_COME("TensorBoard files", "false")),
};

const int lt_config_key_count = sizeof lt_config_keys / sizeof *lt_config_keys;
_Static_assert(sizeof lt_config_keys / sizeof *lt_config_keys <= LT_CONFIG_MAX_KEYS,
               "lt_config.set is too small");

const lt_config_key *lt_config_find(const char *path) {
    for (int row = 0; row < lt_config_key_count; row++) {
        if (strcmp(lt_config_keys[row].path, path) == 0) return &lt_config_keys[row];
    }
    return NULL;
}

int lt_config_row(const lt_config_key *key) {
    return (int)(key - lt_config_keys);
}

bool lt_config_is_section(const char *path) {
    size_t length = strlen(path);
    for (int row = 0; row < lt_config_key_count; row++) {
        const char *known = lt_config_keys[row].path;
        if (strncmp(known, path, length) == 0 && known[length] == '.') return true;
    }
    return false;
}

enum { MAX_NAME = 64 };

/* Levenshtein's distance of two names shorter than MAX_NAME. */
static int edit_distance(const char *a, const char *b) {
    int line[MAX_NAME];
    int width = (int)strlen(b);
    for (int j = 0; j <= width; j++) line[j] = j;
    for (int i = 0; a[i] != '\0'; i++) {
        int diagonal = line[0];
        line[0] = i + 1;
        for (int j = 0; j < width; j++) {
            int replaced = diagonal + (a[i] != b[j]);
            int shorter = (line[j] < line[j + 1] ? line[j] : line[j + 1]) + 1;
            diagonal = line[j + 1];
            line[j + 1] = replaced < shorter ? replaced : shorter;
        }
    }
    return line[width];
}

static const char *last_component(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot != NULL ? dot + 1 : path;
}

/* The edit distance, but small for a right name in the wrong section (train.lr) and for a part of a name in
 * the right one (model.heads). */
static int distance(const char *path, const char *known) {
    int edits = edit_distance(path, known);
    const char *name = last_component(path), *known_name = last_component(known);
    bool same_section = name - path == known_name - known && strncmp(path, known, (size_t)(name - path)) == 0;
    if (strcmp(name, known_name) == 0 && edits > 1) return 1;
    if (same_section && strlen(name) > 2 && strstr(known_name, name) != NULL && edits > 2) return 2;
    return edits;
}

bool lt_config_nearest(const char *path, char *nearest, size_t size) {
    size_t length = strlen(path);
    if (length == 0 || length >= MAX_NAME) return false;
    int best = (length / 3 > 2 ? (int)(length / 3) : 2) + 1;
    bool found = false;
    for (int row = 0; row < lt_config_key_count; row++) {
        char known[MAX_NAME];
        snprintf(known, sizeof known, "%s", lt_config_keys[row].path);
        for (;;) {
            int edits = distance(path, known);
            if (edits < best) {
                best = edits;
                found = true;
                snprintf(nearest, size, "%s", known);
            }
            char *dot = strrchr(known, '.');
            if (dot == NULL) break;
            *dot = '\0';
        }
    }
    return found;
}
