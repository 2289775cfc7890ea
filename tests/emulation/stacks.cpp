#include "tests/emulation/stacks.h"
#include "tests/emulation/fibres.h"

#include <cstdlib>
#include <sys/mman.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define WITH_ASAN 1
#else
#define WITH_ASAN 0
#endif

/* Saves the callee's registers and the stack pointer, and goes on where `to` was left. */
extern "C" void lt_emulation_switch(void **from, void *to);
asm(R"(
.text
.globl lt_emulation_switch
.type lt_emulation_switch, @function
lt_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size lt_emulation_switch, .-lt_emulation_switch
)");

namespace emulation {

namespace {

constexpr size_t STACK_BYTES = WITH_ASAN ? 256 << 10 : 128 << 10;
constexpr size_t ENTRY_BYTES = 8 << 10; /* of begin()'s frame, which never returns */
constexpr size_t GUARD_BYTES = 4096;

std::vector<unsigned char *> free_stacks;
stack *running;
void *caller; /* of go_on(): its stack's pointer */
#if WITH_ASAN
void *caller_asan;
const void *caller_bottom;
size_t caller_bytes;
#endif

void switch_back(bool for_ever) {
    stack *self = running;
#if WITH_ASAN
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &self->asan, caller_bottom, caller_bytes);
#else
    (void)for_ever;
#endif
    lt_emulation_switch(&self->pointer, caller);
#if WITH_ASAN
    __sanitizer_finish_switch_fiber(self->asan, &caller_bottom, &caller_bytes);
#endif
}

void begin() {
#if WITH_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &caller_bottom, &caller_bytes);
#endif
    running->function();
    switch_back(true);
    abort();
}

unsigned char *take_memory() {
    if (!free_stacks.empty()) {
        unsigned char *memory = free_stacks.back();
        free_stacks.pop_back();
        return memory;
    }
    /* The lowest page is a guard. */
    void *memory = mmap(nullptr, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0)
        fail("no memory for a thread's stack");
    return static_cast<unsigned char *>(memory) + GUARD_BYTES;
}

} // namespace

void open_stack(stack *s, void (*function)()) {
    s->memory = take_memory();
    s->function = function;
#if WITH_ASAN
    __asan_unpoison_memory_region(s->memory + STACK_BYTES - ENTRY_BYTES, ENTRY_BYTES);
#endif
    void **top = reinterpret_cast<void **>(s->memory + STACK_BYTES);
    *--top = nullptr; /* so that the stack is aligned as after a call */
    *--top = reinterpret_cast<void *>(begin);
    for (int registers = 0; registers < 6; registers++) *--top = nullptr;
    s->pointer = top;
}

void close_stack(stack *s) {
    free_stacks.push_back(s->memory);
}

void go_on(stack *s) {
    running = s;
#if WITH_ASAN
    __sanitizer_start_switch_fiber(&caller_asan, s->memory, STACK_BYTES);
#endif
    lt_emulation_switch(&caller, s->pointer);
#if WITH_ASAN
    __sanitizer_finish_switch_fiber(caller_asan, nullptr, nullptr);
#endif
    running = nullptr;
}

void leave() {
    switch_back(false);
}

} // namespace emulation
