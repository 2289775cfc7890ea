/* The kernels of the instruction set that this file is compiled for, under their own names. */
#ifndef LT_MODEL_CPU_KERNELS_NAMES_H
#define LT_MODEL_CPU_KERNELS_NAMES_H

#include "model/cpu/kernels/kernels.h"
#include "model/cpu/kernels/vector.h"

void LT_KERNEL(lt_attention_pack)(const lt_attention_job *, int64_t, int);
void LT_KERNEL(lt_attention_forward)(const lt_attention_job *, int64_t, int);
void LT_KERNEL(lt_attention_backward)(const lt_attention_job *, int64_t, int);
void LT_KERNEL(lt_attention_sum_keys)(const lt_attention_job *, int64_t, int);
void LT_KERNEL(lt_attention_sum_lazy)(const lt_attention_job *, int64_t, int);
void LT_KERNEL(lt_attention_statistics)(const lt_attention_job *, int64_t, int);
void LT_KERNEL(lt_rmsnorm_forward)(const float *, const float *, float, int64_t, float *, float *);
void LT_KERNEL(lt_rmsnorm_backward)(const float *, const float *, float, const float *, int64_t, float *,
                                    float *);
void LT_KERNEL(lt_rope)(float *, const float *, int64_t, int64_t, bool);
void LT_KERNEL(lt_swiglu_forward)(const float *, const float *, int64_t, float *);
void LT_KERNEL(lt_swiglu_backward)(const float *, const float *, const float *, int64_t, float *, float *,
                                   float *);
double LT_KERNEL(lt_cross_entropy)(float *, int64_t, int32_t, float, bool);
double LT_KERNEL(lt_exponentials)(float *, int64_t, bool, float *);
void LT_KERNEL(lt_multiply)(float *, float, int64_t);
void LT_KERNEL(lt_add)(float *, const float *, int64_t);
double LT_KERNEL(lt_sum_squares)(const float *, int64_t);
void LT_KERNEL(lt_adamw)(float *, const float *, float *, float *, int64_t, const lt_adamw *);

extern const lt_kernels LT_KERNEL(lt_kernels);

#endif
