"""A seed depends on everything that it is for, and on nothing else."""

import torch

from hf_l3rs.tasks.pools import derive_seed, generator


def test_seeds_differ_by_every_part_and_stay_the_same():
    assert derive_seed(0, "noise", 1, 2) == derive_seed(0, "noise", 1, 2) == 674851391966508135
    seeds = {derive_seed(*parts) for parts in ((0, 1), (1, 0), (0, 1, 0), ("01", 0), (2**70, 1), (-1, 1))}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)


def test_generators_draw_the_same_numbers():
    assert torch.equal(torch.rand(3, generator=generator(0, "a")), torch.rand(3, generator=generator(0, "a")))
