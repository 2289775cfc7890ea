# Test programs: tests/unit/test_*.c (one process) and tests/mpi/test_*.c (run at the rank counts that the first
# line of each names). Each is linked with everything but main().

UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
MPI_TESTS  := $(patsubst tests/mpi/%.c,$(BUILD)/tests/mpi/%,$(wildcard tests/mpi/test_*.c))
REFERENCE_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/reference/*.c))

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(REFERENCE_OBJECTS) $(OBJECTS)
	@mkdir -p $(@D)
	$(MPICC) $(ALL_CFLAGS) -o $@ $^ -lcmocka $(LIBS)

$(BUILD)/tests/mpi/%: $(BUILD)/obj/tests/mpi/%.o $(REFERENCE_OBJECTS) $(OBJECTS)
	@mkdir -p $(@D)
	$(MPICC) $(ALL_CFLAGS) -o $@ $^ -lcmocka $(LIBS)

$(BUILD)/tests/unit/%: EXTRA := $(HDF5_CFLAGS)

.PHONY: build-tests
build-tests: all $(UNIT_TESTS) $(MPI_TESTS)
