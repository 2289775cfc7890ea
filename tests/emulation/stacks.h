/* Functions that stop in their midst and go on later: each has a stack, and one at a time runs. They are of
 * one thread of the process, and switching is written for x86-64. */
#ifndef LT_TESTS_EMULATION_STACKS_H
#define LT_TESTS_EMULATION_STACKS_H

namespace emulation {

struct stack {
    unsigned char *memory;
    void *pointer; /* where it was left */
    void *asan;    /* what AddressSanitizer keeps of it meanwhile */
    void (*function)();
};

/* For close_stack(), after its function has returned. */
void open_stack(stack *s, void (*function)());
void close_stack(stack *s);

/* Runs the function until it leaves, or returns. */
void go_on(stack *s);

/* From within: back to where go_on() was called. */
void leave();

} // namespace emulation

#endif
