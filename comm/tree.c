#include "comm/tree.h"

/* Some elements of the flat array. */
typedef struct range {
    int64_t first, count;
} range;

lt_status lt_tree_check(const lt_grid *grid) {
    if ((grid->data_ranks & (grid->data_ranks - 1)) == 0) return LT_OK;
    return lt_fail(
        LT_BAD_INPUT,
        "found %d data ranks, expected a power of two (1, 2, 4, 8, ...): gradients are summed along a binary "
        "tree; start another number of ranks",
        grid->data_ranks);
}

void lt_add_on_host(void *context, float *restrict destination, const float *restrict source, int64_t count) {
    (void)context;
    for (int64_t i = 0; i < count; i++) destination[i] += source[i];
}

int lt_tree_share(int rank, int ranks) {
    int share = 0;
    for (int bit = 1; bit < ranks; bit *= 2) share = 2 * share + ((rank & bit) != 0 ? 1 : 0);
    return share;
}

int64_t lt_tree_scratch(int64_t count, int ranks, bool to_owner) {
    return to_owner && ranks == 2 ? count : (count + 1) / 2;
}

static int64_t cut(const lt_tree *tree, int share) {
    return tree->cuts != NULL ? tree->cuts[share] : tree->first + tree->count * share / tree->ranks;
}

static range shares_range(const lt_tree *tree, int first, int shares) {
    return (range){cut(tree, first), cut(tree, first + shares) - cut(tree, first)};
}

/* Which shares each rank of a pair keeps at the present distance. */
typedef struct pair {
    int shares; /* of each */
    int mine, theirs;
} pair;

/* Neighbouring shares, halved at every level, of which the lower rank of the pair keeps the lower half. Both
 * have summed the same elements until then. */
static pair pair_of(const lt_tree *tree) {
    const int shares = tree->ranks / (2 * tree->distance);
    const int mine = lt_tree_share(tree->rank, tree->ranks) / shares * shares;
    return (pair){shares, mine, mine ^ shares};
}

/* Whether this rank's share differs from the owner's in that bit, so that the partner is nearer the owner. */
static bool gives(const lt_tree *tree, int bit) {
    return ((lt_tree_share(tree->rank, tree->ranks) ^ tree->owner) & bit) != 0;
}

/* What this rank goes on to sum, and what its partner does. On the way to one owner the last two shares need
 * not be halved: the one of the pair that is on the owner's side takes both. */
static void halve(const lt_tree *tree, range *kept, range *given) {
    const pair p = pair_of(tree);
    *kept = shares_range(tree, p.mine, p.shares);
    *given = shares_range(tree, p.theirs, p.shares);
    if (tree->owner == LT_TREE_ALL || p.shares > 1) return;
    const bool gives_all = gives(tree, 1);
    *(gives_all ? given : kept) = shares_range(tree, p.mine / 2 * 2, 2);
    (gives_all ? kept : given)->count = 0;
}

static lt_status post(lt_tree *tree, float *to, range received, range sent) {
    const int64_t size = sizeof *tree->values;
    const int partner = tree->rank ^ tree->distance;
    LT_CHECK(lt_receive(tree->transport, partner, tree->tag, to, received.count * size, &tree->under_way[0]));
    return lt_send(tree->transport, partner, tree->tag, tree->values + sent.first, sent.count * size,
                   &tree->under_way[1]);
}

static lt_status post_halving(lt_tree *tree) {
    range kept, given;
    halve(tree, &kept, &given);
    return post(tree, tree->scratch, kept, given);
}

/* On the way to one owner a rank whose share differs from the owner's in a lower bit has handed on all it
 * had. */
static lt_status post_gathering(lt_tree *tree) {
    const pair p = pair_of(tree);
    range sent = shares_range(tree, p.mine, p.shares), received = shares_range(tree, p.theirs, p.shares);
    if (tree->owner != LT_TREE_ALL) {
        const bool idle = gives(tree, p.shares - 1);
        if (idle || gives(tree, p.shares)) received.count = 0;
        if (idle || !gives(tree, p.shares)) sent.count = 0;
    }
    return post(tree, tree->values + received.first, received, sent);
}

lt_status lt_tree_sum(lt_tree *tree) {
    tree->distance = 1;
    tree->gathers = tree->done = false;
    return post_halving(tree);
}

static lt_status gather_from(lt_tree *tree, int distance) {
    tree->distance = distance;
    tree->gathers = true;
    tree->done = distance == 0;
    return tree->done ? LT_OK : post_gathering(tree);
}

lt_status lt_tree_gather(lt_tree *tree) {
    return gather_from(tree, tree->ranks / 2);
}

/* Both messages of a level have arrived. */
static lt_status next_level(lt_tree *tree) {
    if (tree->gathers) return gather_from(tree, tree->distance / 2);
    range kept, given;
    halve(tree, &kept, &given);
    tree->device->add(tree->device->context, tree->values + kept.first, tree->scratch, kept.count);
    tree->distance *= 2;
    if (tree->distance < tree->ranks) return post_halving(tree);
    return gather_from(tree, tree->owner == LT_TREE_ALL ? tree->ranks / 2 : tree->ranks / 4);
}

lt_status lt_tree_advance(lt_tree *tree, bool *moved) {
    while (!tree->done && lt_transfer_done(&tree->under_way[0]) && lt_transfer_done(&tree->under_way[1])) {
        *moved = true;
        LT_CHECK(next_level(tree));
    }
    return LT_OK;
}
