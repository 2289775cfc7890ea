# The very sources of model/cuda, compiled as C++ for the host: with the sanitizers into test programs, plainly into a
# plugin, by which the whole program computes on an emulated GPU. Switching stacks is written for x86-64.

EMULATION := $(BUILD)/emulation
EMULATION_FLAGS := -std=c++17 -Wno-unknown-pragmas -Wno-psabi -Itests/emulation/include -Itests/gpu/include -I. -Wall -Wextra -Wconversion -g -pthread
EMULATION_SANITIZE := -O2 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
EMULATION_SOURCES := $(CUDA_SOURCES) $(patsubst %,tests/emulation/%.cpp,stacks fibres banks warpgroup phases bulk_copies runtime cublaslt nccl)
EMULATED := $(patsubst %,$(EMULATION)/checked/%.o,$(basename $(EMULATION_SOURCES)))
PLAIN    := $(patsubst %,$(EMULATION)/plain/%.o,$(basename $(EMULATION_SOURCES)))

define emulated_objects
$(EMULATION)/$(1)/%.o: %.cu $(BUILD)/compiled_by tests/emulation/targets.mk
	@mkdir -p $$(@D)
	$$(CXX) -x c++ $$(EMULATION_FLAGS) $(2) -MMD -MP -c -o $$@ $$<
$(EMULATION)/$(1)/%.o: %.cpp $(BUILD)/compiled_by tests/emulation/targets.mk
	@mkdir -p $$(@D)
	$$(CXX) $$(EMULATION_FLAGS) $(2) -MMD -MP -c -o $$@ $$<
endef
$(eval $(call emulated_objects,checked,$(EMULATION_SANITIZE)))
$(eval $(call emulated_objects,plain,-O2 -fPIC))

# Tests of operations and of the model run on the emulated GPU as they do on the CPU; others are of the emulation itself.
EMULATED_UNIT := $(GPU_UNIT:%=$(BUILD)/tests/emulation/%)
EMULATED_OWN  := $(patsubst tests/emulation/%.cpp,$(BUILD)/tests/emulation/%,$(wildcard tests/emulation/test_*.cpp))
# The sanitizers make a fibre ten times as slow: they watch the operations; the model goes without, and so does the second
# round of attention's cases.
EMULATED_MODEL := $(filter-out $(BUILD)/tests/emulation/test_ops_%,$(EMULATED_UNIT)) $(filter %_wide,$(EMULATED_UNIT))
EMULATION_REST = $(EMULATION)/checked/tests/emulation/devices.o $(EMULATED) $(GPU_REFERENCE) $(GPU_MODEL)

$(EMULATED_MODEL): $(BUILD)/tests/emulation/%: $(GPU)/obj/tests/unit/%.o $(EMULATION)/plain/tests/emulation/devices.o $(PLAIN) $(GPU_REFERENCE) $(GPU_MODEL)
	@mkdir -p $(@D)
	$(CXX) -o $@ $^ -lm -pthread

$(filter-out $(EMULATED_MODEL),$(EMULATED_UNIT)): $(BUILD)/tests/emulation/%: $(GPU)/obj/tests/unit/%.o $(EMULATION_REST)
	@mkdir -p $(@D)
	$(CXX) $(EMULATION_SANITIZE) -o $@ $^ -lm -pthread

$(EMULATED_OWN): $(BUILD)/tests/emulation/%: $(EMULATION)/checked/tests/emulation/%.o $(EMULATION_REST)
	@mkdir -p $(@D)
	$(CXX) $(EMULATION_SANITIZE) -o $@ $^ -lm -pthread

# The table of attention once more, for the kernels of compute capability 9.0.
EMULATED_SM90 := $(BUILD)/tests/emulation/test_ops_attention_sm90
$(EMULATED_SM90): $(GPU)/obj/tests/emulation/ops_attention_sm90.o $(EMULATION)/plain/tests/emulation/devices_sm90.o $(PLAIN) $(GPU_REFERENCE) $(GPU_MODEL)
	@mkdir -p $(@D)
	$(CXX) -o $@ $^ -lm -pthread

# make gpu-bench's program with an emulated cuDNN, for its smoke test.
$(EMULATION)/bench: $(filter-out %/cudnn_library.o,$(GPU_BENCH)) $(EMULATION)/plain/tests/emulation/cudnn.o $(PLAIN) $(GPU_MODEL)
	@mkdir -p $(@D)
	$(CXX) -o $@ $^ -lm -pthread

$(EMULATION)/plugins/cuda.so: $(PLAIN)
	@mkdir -p $(@D)
	$(CXX) -shared -pthread -o $@ $^

.PHONY: build-emulation
ifeq ($(ARCH),x86_64)
build-emulation: $(EMULATED_UNIT) $(EMULATED_OWN) $(EMULATED_SM90) $(EMULATION)/bench $(EMULATION)/plugins/cuda.so
else
build-emulation:
endif
