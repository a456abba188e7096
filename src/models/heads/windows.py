"""One answer from the windows of a review: the mean of their logits.

Sun et al. 2019 (arXiv 1905.05583, section 5.3.2) and Pappagari et al. 2019 (arXiv 1910.10781) put the windows' vectors
together in training too. Here each window is a review of its own in training, so that few labels give more to learn
from, and the mean is taken in evaluation.
"""

import torch


def mean_over_windows(logits: torch.Tensor, review: torch.Tensor, reviews: int) -> torch.Tensor:
    """The mean of the logits of each review's windows, shape (reviews, labels).

    Args:
        logits: of shape (windows, labels).
        review: the number of the review that a window belongs to, int64 of shape (windows,).
        reviews: their number; each has a window.
    """
    # a sum over all, not index_add_, whose order on a GPU is another each time, nor a product, which autocast rounds
    belongs = review == torch.arange(reviews, device=review.device)[:, None]
    return torch.where(belongs[..., None], logits, 0).sum(dim=1) / belongs.sum(dim=1, keepdim=True)
