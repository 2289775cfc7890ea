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

int lt_tree_share(int rank, int ranks) {
    int share = 0;
    for (int bit = 1; bit < ranks; bit *= 2) share = 2 * share + ((rank & bit) != 0 ? 1 : 0);
    return share;
}

int64_t lt_tree_scratch(int64_t count) {
    return (count + 1) / 2;
}

static int64_t cut(const lt_tree *tree, int share) {
    return tree->cuts != NULL ? tree->cuts[share] : tree->first + tree->count * share / tree->ranks;
}

static range shares_range(const lt_tree *tree, int first, int shares) {
    return (range){cut(tree, first), cut(tree, first + shares) - cut(tree, first)};
}

/* Shares that each rank of a pair keeps at the present distance. */
static int kept_shares(const lt_tree *tree) {
    return tree->ranks / (2 * tree->distance);
}

/* What this rank keeps and what it gives away: neighbouring shares, halved at every level, of which the lower
 * rank of the pair keeps the lower half. Both have summed the same elements until then. */
static range kept(const lt_tree *tree) {
    const int shares = kept_shares(tree);
    return shares_range(tree, lt_tree_share(tree->rank, tree->ranks) / shares * shares, shares);
}

static range given(const lt_tree *tree) {
    const int shares = kept_shares(tree);
    const int first = lt_tree_share(tree->rank, tree->ranks) / shares * shares;
    return shares_range(tree, first ^ shares, shares);
}

static lt_status post(lt_tree *tree, float *to, range received, range sent) {
    const int64_t size = sizeof *tree->values;
    const int partner = tree->rank ^ tree->distance;
    LT_CHECK(lt_receive(tree->transport, partner, tree->tag, to, received.count * size, &tree->under_way[0]));
    return lt_send(tree->transport, partner, tree->tag, tree->values + sent.first, sent.count * size,
                   &tree->under_way[1]);
}

/* On the way to one owner those ranks have handed on all they had whose share differs from the owner's in a
 * bit below the present one; of the others the one on the owner's side takes what its partner has. */
static lt_status post_gathering(lt_tree *tree) {
    range sent = kept(tree), received = given(tree);
    const int shares = kept_shares(tree), apart = lt_tree_share(tree->rank, tree->ranks) ^ tree->owner;
    if (tree->owner != LT_TREE_ALL) {
        const bool idle = apart % shares != 0, gives = (apart & shares) != 0;
        if (idle || gives) received.count = 0;
        if (idle || !gives) sent.count = 0;
    }
    return post(tree, tree->values + received.first, received, sent);
}

lt_status lt_tree_sum(lt_tree *tree) {
    tree->distance = 1;
    tree->gathers = tree->done = false;
    return post(tree, tree->scratch, kept(tree), given(tree));
}

lt_status lt_tree_gather(lt_tree *tree) {
    tree->distance = tree->ranks / 2;
    tree->gathers = true;
    tree->done = false;
    return post_gathering(tree);
}

/* Both messages of a level have arrived. */
static lt_status next_level(lt_tree *tree) {
    if (tree->gathers) {
        tree->distance /= 2;
        tree->done = tree->distance == 0;
        return tree->done ? LT_OK : post_gathering(tree);
    }
    const range summed = kept(tree);
    tree->device->add(tree->device->context, tree->values + summed.first, tree->scratch, summed.count);
    tree->distance *= 2;
    if (tree->distance == tree->ranks) return lt_tree_gather(tree);
    return post(tree, tree->scratch, kept(tree), given(tree));
}

lt_status lt_tree_advance(lt_tree *tree, bool wait, bool *moved) {
    while (!tree->done) {
        bool arrived[2] = {true, true};
        if (wait) {
            LT_CHECK(lt_transfers_wait(tree->transport, tree->under_way, 2));
        } else {
            for (int i = 0; i < 2; i++)
                LT_CHECK(tree->transport->test(tree->transport, &tree->under_way[i], &arrived[i]));
        }
        if (!arrived[0] || !arrived[1]) return LT_OK;
        *moved = true;
        LT_CHECK(next_level(tree));
    }
    return LT_OK;
}
