/* What a step asks of a GPU beside its kernels' work: tokens go in once for each micro-batch, scalars come
 * out once, nothing is copied within, and an update is as many launches for many layers as for one. */
#include "tests/emulation/fibres.h"

extern "C" {
#include "model/step.h"
#include "tests/reference/fixture.h"
}

#include <vector>

namespace {

enum { T = 16, VOCABULARY = 40, BATCHES = 2 };

struct text {
    int32_t tokens[T + 1], starts[T];
};

lt_status next_batch(void *context, bool last, lt_tokens *tokens) {
    const text *of = static_cast<text *>(context);
    (void)last;
    *tokens = {1, of->tokens, of->tokens + 1, of->starts};
    return LT_OK;
}

/* One step of a model; `launches`: those of its update. */
emulation::counts step(int layers, uint64_t *launches) {
    lt_device *device = test_open_device(TEST_DEVICES[0], 1);
    lt_model_options options = {};
    options.shape.vocabulary = VOCABULARY, options.shape.hidden = 16, options.shape.layers = layers;
    options.shape.heads = 2, options.shape.key_heads = 1, options.shape.intermediate = 24;
    options.shape.rope_theta = 10000.0, options.shape.norm_eps = 1e-6, options.shape.init_std = 0.1;
    options.shape.attention = LT_ATTENTION_LAZY, options.shape.bias_length = 5;
    options.shape.bias_init_std = 0.001, options.shape.tau_init = -1.0;
    options.sequence_length = T, options.micro_batch = 1, options.training = true;
    options.gradient_buffers = 1, options.loss_slots = BATCHES;
    lt_model *model = nullptr;
    assert_int_equal(lt_model_create(&options, device, &model), LT_OK);
    assert_int_equal(lt_model_initialise(model, 1), LT_OK);
    text of = {};
    for (int i = 0; i <= T; i++) of.tokens[i] = i * i % VOCABULARY;
    std::vector<double> workspace(static_cast<size_t>(lt_step_workspace(model, BATCHES)));
    lt_exchange exchange = {};
    exchange.context = &of, exchange.next_batch = next_batch;
    lt_step_options how = {};
    how.lanes = 1, how.batches_per_lane = BATCHES, how.micro_batch = 1, how.targets = BATCHES * T;
    how.workspace = workspace.data();
    how.update.step = 1, how.update.learning_rate = how.update.lazy_learning_rate = 1e-3;
    how.update.beta1 = 0.9, how.update.beta2 = 0.95, how.update.epsilon = 1e-8;
    lt_step_result result;
    assert_int_equal(device->ops->synchronise(device), LT_OK);
    emulation::count = {};
    assert_int_equal(lt_step_run(model, &how, &exchange, &result), LT_OK);
    assert_int_equal(result.outcome, LT_STEP_UPDATED);
    assert_int_equal(device->ops->synchronise(device), LT_OK);
    const emulation::counts done = emulation::count;
    lt_model_update(model, &how.update);
    assert_int_equal(device->ops->synchronise(device), LT_OK);
    *launches = emulation::count.launches - done.launches;
    lt_model_destroy(model);
    device->ops->destroy(device);
    return done;
}

void test_copies(void **state) {
    (void)state;
    for (int layers : {1, 3}) {
        uint64_t launches;
        const emulation::counts done = step(layers, &launches);
        assert_int_equal(done.uploads, BATCHES);
        assert_int_equal(done.downloads, 1);
        assert_int_equal(done.copies, 0);
        assert_int_equal(launches, 1);
    }
}

} // namespace

int main() {
    const CMUnitTest tests[] = {{"copies and launches", test_copies, nullptr, test_free_all, nullptr}};
    return cmocka_run_group_tests_name("what a step asks of a GPU", tests, nullptr, nullptr);
}
