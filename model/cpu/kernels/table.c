/* The table of this instruction set's kernels. */
#include "model/cpu/kernels/names.h"

#define LT_TEXT_(x) #x
#define LT_TEXT(x) LT_TEXT_(x)

const lt_kernels LT_KERNEL(lt_kernels) = {
    .name = LT_TEXT(LT_ISA),
    .attention_pack = LT_KERNEL(lt_attention_pack),
    .attention_forward = LT_KERNEL(lt_attention_forward),
    .attention_backward = LT_KERNEL(lt_attention_backward),
    .attention_sum_keys = LT_KERNEL(lt_attention_sum_keys),
    .attention_sum_lazy = LT_KERNEL(lt_attention_sum_lazy),
    .attention_statistics = LT_KERNEL(lt_attention_statistics),
    .rmsnorm_forward = LT_KERNEL(lt_rmsnorm_forward),
    .rmsnorm_backward = LT_KERNEL(lt_rmsnorm_backward),
    .rope = LT_KERNEL(lt_rope),
    .swiglu_forward = LT_KERNEL(lt_swiglu_forward),
    .swiglu_backward = LT_KERNEL(lt_swiglu_backward),
    .cross_entropy = LT_KERNEL(lt_cross_entropy),
    .exponentials = LT_KERNEL(lt_exponentials),
    .multiply = LT_KERNEL(lt_multiply),
    .add = LT_KERNEL(lt_add),
    .sum_squares = LT_KERNEL(lt_sum_squares),
    .adamw = LT_KERNEL(lt_adamw),
};
