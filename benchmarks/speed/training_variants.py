"""What `benchmarks.speed.training` compares: the peers' scripts, and our command with recipes of its own."""

from dataclasses import dataclass, field

# A's recipe, whatever the quickstart's is: dropout as in the checkpoint, 512 tokens from the start
SAME_RECIPE = [
    "--model.learning_rate=5e-5",
    "--model.weight_decay=0",
    "--model.warmup_ratio=0",
    "--model.schedule=linear",
    "--model.layer_decay=1",
    "--model.attention_dropout=null",
    "--model.hidden_dropout=null",
    "--model.pooling=cls",
    "--model.linear_probe=false",
    "--data.max_length=512",
    "--data.truncation=head",
    "--data.group_by_length=true",
    "--data.batch_size=8",
]

# fewer tokens a review, as `short` in recipes.yaml
SHORT_RECIPE = [
    *SAME_RECIPE,
    "--model.learning_rate=1e-4",
    "--model.warmup_ratio=0.1",
    "--model.attention_dropout=0",
    "--data.max_length=256",
    "--data.truncation=head_tail",
]

# all of a review, as configs/quickstart.yaml and `windows` in recipes.yaml
WINDOWS_RECIPE = [
    *SHORT_RECIPE,
    "--model.pooling=mean",
    "--model.linear_probe=true",
    "--data.max_length=128",
    "--data.truncation=windows",
]


@dataclass(frozen=True)
class Variant:
    """One of the columns of the table.

    Attributes:
        name: in the table.
        peer: the module of a script; None for ours.
        options: of our command line, beyond the quickstart's configuration.
        seconds_a_review: a guess, for the time left.
    """

    name: str
    peer: str | None
    seconds_a_review: float
    options: list[str] = field(default_factory=list)

    @property
    def one_step(self) -> list[str]:
        """Options that end it after its first step."""
        return ["--max_steps", "1"] if self.peer else ["--trainer.max_steps=1", "--trainer.limit_val_batches=1"]


VARIANTS = {
    "A": Variant("A: Trainer, tutorial", "benchmarks.peers.tutorial", 1.1),
    "same": Variant("ours, A's recipe", None, 0.3, SAME_RECIPE),
    "B": Variant("B: Trainer, expert", "benchmarks.peers.expert", 0.6),
    "short": Variant("ours, 256 tokens", None, 0.2, SHORT_RECIPE),
    "windows": Variant("ours, windows", None, 0.35, WINDOWS_RECIPE),
}
