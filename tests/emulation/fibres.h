/* How a kernel runs on the host: each thread of a block is a fibre (its own stack, switched by hand), and the
 * fibres of a block take turns, each until it waits for others.
 *
 * What a GPU leaves open is made as adverse as can be, so that a kernel that relies on luck fails: threads
 * and blocks run in ascending, descending or drawn orders (set_order), blocks one after the other in the
 * first and three at a time in the others, of which one may be far ahead; shared memory begins as NaN; each
 * shared array is an allocation of its exact size, so that AddressSanitizer sees an access beyond it. A
 * kernel that cannot go on (a barrier that some threads of a block do not reach, lanes of a warp at different
 * exchanges, blocks that wait for one that has not started) ends the program with a line that names it.
 * Kernels are run one at a time, to their end, by the thread that launches them.
 */
#ifndef LT_TESTS_EMULATION_FIBRES_H
#define LT_TESTS_EMULATION_FIBRES_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
        : x(width), y(height), z(depth) {}
};

/* Of the thread that runs. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulation {

/* 0: threads and blocks in ascending order; 1: descending; others: drawn from this seed. For all launches
 * that follow. */
void set_order(uint64_t seed);

/* Whether what a GPU may do at once or later is done later: in ascending order never, in descending order
 * always. */
bool later();

/* What the launches so far did. */
struct counts {
    uint64_t launches, threads, barriers, exchanges;
    uint64_t shared_accesses;            /* of a warp, by the wrappers of instructions.h */
    uint64_t bank_conflicts;             /* of them, turns beyond those that the bytes need */
    uint64_t products;                   /* m16n8k16 of a warp */
    uint64_t uploads, downloads, copies; /* cudaMemcpyAsync to the GPU, from it, within it */
};
extern counts count;

/* `shared_limit`: of the block's arrays and its dynamic shared memory together. */
void launch(const char *kernel, dim3 grid, dim3 block, size_t dynamic_bytes, size_t shared_limit,
            const std::function<void()> &thread);

/* Memory of the block, the same for all of its threads that ask with one key: first 0xff everywhere. */
void *shared(const void *key, size_t bytes, size_t alignment);
void *dynamic_shared(size_t *bytes);

/* Waits for all threads of the block that have not ended, or for `threads` of them at barrier `id`. */
void barrier(int id, int threads);

/* Each lane of this warp brings `bytes` bytes, and reads what the others brought by from() until its next
 * exchange. `what` names the instruction: all lanes must be at the same. `mask` has all lanes: none of our
 * kernels exchanges less than a warp. */
constexpr size_t LANE_BYTES = 128;
void exchange(unsigned mask, const char *what, const void *value, size_t bytes);
const void *from(int lane);

/* Lets others go on until `done`, which others make true: a spin on memory. */
void wait_until(const char *what, const std::function<bool()> &done);

/* A warp's access to shared memory, `bytes` (4, 8 or 16) at each lane's address: counts bank conflicts.
 * Collective on the warp, whose 32 lanes are all there. count_access() is its second half, of addresses that
 * began what lanes brought to their last exchange. */
void shared_access(const void *address, size_t bytes);
void count_access(size_t bytes);

/* Copies to shared memory that this thread has asked for and not yet waited for: `to` is NaN until it has,
 * then what lies at `from` by then, or 0 where it is not `there`. A wait leaves the last `left` groups. */
void copy_later(void *to, const void *from, size_t bytes, bool there);
void commit_copies();
void wait_for_copies(int left);
/* Takes them from this thread: who calls what is returned has waited for them. */
std::function<void()> take_copies();

/* This thread's number in its block; what twins keep for a thread and for its block, and free with them:
 * warpgroup.cpp and, for the block's barriers in shared memory, phases.cpp. */
int thread_number();
std::shared_ptr<void> &kept_for_thread();
std::shared_ptr<void> &kept_for_block();
std::shared_ptr<void> &phases_of_block();

/* The asynchronous proxy, by which wgmma reads dynamic shared memory and bulk copies write it: what this
 * thread wrote by shared_write() or cp.async is not there for it before the thread's fence. unfenced_writer()
 * of 16 bytes at `address`: a thread that owes one, or -1. */
void note_write(const void *address, size_t bytes);
void fence_writes();
int unfenced_writer(const void *address);

/* Ends the program; for the wrappers. */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

int lane();

} // namespace emulation

#endif
