"""The mean of the logits over a review's windows, for reviews that are longer than the network's input.

Only evaluation takes the mean. In training, each window is a row of its own, which gives more rows to learn from where
labels are few. Sun et al. 2019 (arXiv 1905.05583, section 5.3.2) and Pappagari et al. 2019 (arXiv 1910.10781) combine
the windows' vectors in training too.
"""

import torch


def mean_over_windows(logits: torch.Tensor, review: torch.Tensor, reviews: int) -> torch.Tensor:
    """The mean of the logits of each review's windows, shape (reviews, labels).

    Args:
        logits: of shape (windows, labels).
        review: index of the review that each window belongs to, int64 of shape (windows,).
        reviews: the number of reviews; each has at least one window.
    """
    # not index_add_, which is not deterministic on a GPU, nor a matrix product, which autocast rounds
    belongs = review == torch.arange(reviews, device=review.device)[:, None]
    return torch.where(belongs[..., None], logits, 0).sum(dim=1) / belongs.sum(dim=1, keepdim=True)
