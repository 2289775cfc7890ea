/* Gradients of parameters that several ranks of a group hold: norms, and key heads fewer than ranks. Each
 * rank has the part of them that its rows and query heads give; the copies are summed in the order of their
 * ranks, so that all end with the same bits. */
#include "model/plan.h"
#include "model/split.h"

/* A run of gradients, elements [at, at + count), that ranks [first, first + copies) hold. */
typedef struct copied {
    int64_t at, count;
    int first, copies;
} copied;

/* How far a walk over the runs has come. */
typedef struct cursor {
    int parameter;
    int64_t done; /* of the parameter's elements in this model's share */
} cursor;

static bool is_copied(const lt_model *model, const lt_parameter *parameter, lt_span *own) {
    *own = lt_model_own(model, parameter, 0, parameter->count);
    return parameter->parts < model->ranks && own->first < own->end;
}

static int64_t count_copied(const lt_model *model) {
    int64_t count = 0;
    lt_span own;
    for (int i = 0; i < model->registry.count; i++)
        if (is_copied(model, &model->registry.parameters[i], &own)) count += own.end - own.first;
    return count;
}

/* The next run, of at most `room` elements; there is one. */
static copied next_run(const lt_model *model, cursor *walk, int64_t room) {
    lt_span own;
    const lt_parameter *p = &model->registry.parameters[walk->parameter];
    while (!is_copied(model, p, &own) || own.first + walk->done == own.end) {
        walk->done = 0;
        p = &model->registry.parameters[++walk->parameter];
    }
    const int64_t at = own.first + walk->done, left = own.end - at, count = left < room ? left : room;
    const int part = lt_split_part(p, model->rank, model->ranks);
    walk->done += count;
    return (copied){at, count, lt_split_holder(p, part, model->ranks), model->ranks / p->parts};
}

/* Exchanges `part` elements of a rank, packed in memory of activations, from where `from` stands. */
static lt_status sum_runs(lt_model *model, cursor *from, int64_t part) {
    const lt_ops *ops = model->device->ops;
    const lt_mem packed = {model->normed.address, LT_FLOAT32}, gradients = model->gradients[0];
    cursor walk = *from;
    copied run;
    for (int64_t done = 0; done < part; done += run.count) {
        run = next_run(model, &walk, part - done);
        ops->copy(model->device, lt_at(packed, model->rank * part + done), lt_at(gradients, run.at),
                  run.count);
    }
    for (int rank = 0; rank <= model->ranks; rank++) model->cuts[rank] = rank * part;
    LT_CHECK(model->group->all_gather(model->group->context, packed, model->cuts));
    for (int64_t done = 0; done < part; done += run.count) {
        run = next_run(model, from, part - done);
        const lt_mem sum = lt_at(gradients, run.at), first = lt_at(packed, run.first * part + done);
        ops->copy(model->device, sum, first, run.count);
        for (int copy = 1; copy < run.copies; copy++)
            ops->add(model->device, sum, lt_at(first, copy * part), run.count);
    }
    return LT_OK;
}

lt_status lt_model_sum_copies(lt_model *model) {
    if (model->group == NULL) return LT_OK;
    const size_t bytes = lt_type_bytes(model->normed.type) * (size_t)(model->most_rows * model->shape.hidden);
    const int64_t total = count_copied(model), room = (int64_t)(bytes / sizeof(float)) / model->ranks;
    cursor from = {0};
    int64_t part;
    for (int64_t done = 0; done < total; done += part) {
        part = total - done < room ? total - done : room;
        LT_CHECK(sum_runs(model, &from, part));
    }
    return LT_OK;
}
