# What a machine with a GPU builds with nvcc and its host compiler alone: the model, its float64 reference and their tests,
# with tests/gpu/include/cmocka.h for cmocka. The emulated GPU's tests are of the same objects.

GPU := $(BUILD)/gpu
GPU_REFERENCE := $(patsubst %.c,$(GPU)/obj/%.o,tests/gpu/cmocka.c $(filter-out %/cpu_devices.c,$(wildcard tests/reference/*.c)))
GPU_MODEL     := $(patsubst %.c,$(GPU)/obj/%.o,$(wildcard model/*.c) comm/status.c)
GPU_BENCH     := $(patsubst %.c,$(GPU)/obj/%.o,$(wildcard tests/gpu/bench*.c tests/gpu/cudnn_*.c))
GPU_UNIT      := $(basename $(notdir $(wildcard tests/unit/test_ops_*.c))) test_model test_decoder test_step test_recompute test_losses
GPU_INSTRUCTIONS := test_instructions test_instructions_sm90
GPU_PROGRAMS  := $(addprefix $(GPU)/,$(GPU_INSTRUCTIONS) $(GPU_UNIT) describe bench)

$(GPU)/obj/%.o: %.c $(BUILD)/compiled_by
	@mkdir -p $(@D)
	$(CC) -Itests/gpu/include $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(GPU)/obj/%.o: %.cpp $(BUILD)/compiled_by
	@mkdir -p $(@D)
	$(NVCC) -x cu -std=c++17 -Itests/gpu/include -I. $(NVCC_FLAGS) $(CHIPS) -MMD -MF $(@:.o=.d) -c -o $@ $<

$(GPU_INSTRUCTIONS:%=$(GPU)/%): $(GPU)/%: $(GPU)/obj/tests/emulation/%.o
$(GPU)/describe: $(GPU)/obj/tests/gpu/describe.o
$(GPU)/bench: $(GPU_BENCH)
$(GPU_UNIT:%=$(GPU)/%): $(GPU)/%: $(GPU)/obj/tests/unit/%.o
$(GPU_PROGRAMS): $(GPU)/obj/tests/gpu/devices.o $(GPU_REFERENCE) $(GPU_MODEL) $(CUDA_SOURCES:%.cu=$(BUILD)/obj/%.cuda.o)
	@mkdir -p $(@D)
	$(NVCC) -cudart static -o $@ $^ -ldl -lpthread -lm

.PHONY: run-gpu-tests run-gpu-bench
run-gpu-bench: $(GPU)/bench
	@$(GPU)/bench >$(BUILD)/gpu-bench.json

run-gpu-tests: $(GPU_PROGRAMS)
	@tests/gpu/run.sh $(BUILD) $(GPU_INSTRUCTIONS) $(GPU_UNIT)
