"""Networks that read headlines, and headlines as what these networks take."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rnn_pipeline.features.lexicon import CUES, cues
from rnn_pipeline.features.text import UNK, Vocabulary, tokenise
from rnn_pipeline.networks.recurrent import SeededDropout, last_states

#: Letters in one piece of a word, and pieces of a word that are looked at.
PIECE_SIZES, MAX_PIECES = (3, 4, 5), 48

UNKNOWN = 1
"""The id of ``<UNK>``."""

# Where a mask stands when it is not above a recurrent layer (see SeededDropout): before the first.
_INPUT_SITE, _WORD_SITE = 0, -1


class SentimentLSTM(nn.Module):
    """Embedding, LSTM layers, and a linear head on what they read.

    As in the tutorials it is an embedding and one LSTM whose last state is classified. Every
    option adds to that: reading from both sides, attention (Bahdanau et al., 2015, with one learned
    query), the largest value of each unit over the text, the spelling of words (the mean of hashed
    letter n-grams, Bojanowski et al., 2017), and what :mod:`~rnn_pipeline.features.lexicon` knows.

    Args:
        vocab_size: words, ``<PAD>`` 0 and ``<UNK>`` 1 among them.
        embed_dim: length of a word's vector, and of its spelling's.
        hidden_dim: units of each layer and direction.
        output_dim: classes.
        pretrained_embeddings: (vocab_size, embed_dim) vectors to start from.
        dropout: between layers and before the head.
        num_layers: layers on top of each other.
        bidirectional: read from the end, too; layers and head then see both directions.
        attention: classify the attention-weighted mean of the states, not the last one.
        max_pool: classify each unit's maximum (beside the attention's mean, if that is asked for).
        spellings: buckets of letter n-grams; 0: words are not spelt.
        with_cues: take the lexicon's cues of each word.
        word_dropout: share of the words that are read as ``<UNK>`` in training.
        embedding_dropout: of a text's inputs, each at all its steps (Gal and Ghahramani, 2016).

    Raises:
        ValueError: a size or share is out of range, or the pretrained vectors have another shape.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int = 64,
        hidden_dim: int = 64,
        output_dim: int = 3,
        pretrained_embeddings: np.ndarray | Tensor | None = None,
        dropout: float = 0.3,
        num_layers: int = 1,
        bidirectional: bool = False,
        attention: bool = False,
        max_pool: bool = False,
        spellings: int = 0,
        with_cues: bool = False,
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = {
            "vocab_size": vocab_size,
            "embed_dim": embed_dim,
            "hidden_dim": hidden_dim,
            "output_dim": output_dim,
            "num_layers": num_layers,
        }
        if small := {name: size for name, size in sizes.items() if size < 1}:
            raise ValueError(f"sizes {small} must be at least 1")
        shares = (dropout, word_dropout, embedding_dropout)
        if not all(0.0 <= share < 1.0 for share in shares):
            raise ValueError(f"dropout, word_dropout, embedding_dropout {shares} must be in [0, 1)")
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=0)
        self.spelling = (
            nn.EmbeddingBag(spellings, embed_dim, mode="mean", padding_idx=0) if spellings else None
        )
        width = embed_dim * (2 if spellings else 1) + (len(CUES) if with_cues else 0)
        states = hidden_dim * (2 if bidirectional else 1)
        widths = [width, *(states,) * (num_layers - 1)]
        self.layers, self.backward_layers = (
            nn.ModuleList(nn.LSTM(inputs, hidden_dim, batch_first=True) for inputs in directed)
            for directed in (widths, widths if bidirectional else [])
        )
        self.with_cues = with_cues
        self.max_pool = max_pool
        self.query = nn.Linear(states, 1, bias=False) if attention else None
        self.head = nn.Linear(states * max(1, attention + max_pool), output_dim)
        self.word_dropout = SeededDropout(word_dropout, _WORD_SITE)
        self.embedding_dropout = SeededDropout(embedding_dropout, _INPUT_SITE)
        self.dropouts = nn.ModuleList(
            SeededDropout(dropout, depth + 1) for depth in range(num_layers)
        )
        if pretrained_embeddings is not None:
            self.start_from(torch.as_tensor(pretrained_embeddings))

    def start_from(self, vectors: Tensor) -> None:
        """Begin with these word vectors (vocab_size, embed_dim); padding stays 0.

        Raises:
            ValueError: they have another shape, or a value is not finite.
        """
        shape = tuple(self.embedding.weight.shape)
        if tuple(vectors.shape) != shape or not bool(torch.isfinite(vectors).all()):
            raise ValueError(
                f"pretrained_embeddings {tuple(vectors.shape)} must be finite and of shape {shape}:"
                " one row per word of the vocabulary"
            )
        with torch.no_grad():
            self.embedding.weight.copy_(vectors)
            self.embedding.weight[0] = 0.0

    def forward(
        self,
        ids: Tensor,
        lengths: Tensor | None = None,
        pieces: Tensor | None = None,
        which: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Classify texts.

        Args:
            ids: (batch, time) int64 word numbers; what stands behind a text's end is ignored.
            lengths: (batch,) int64 words in each text, from 1 to time; without, ids that are not 0.
            pieces: (n, MAX_PIECES) int64, the letter n-grams of ``n`` spellings, 0 behind the last.
            which: (batch, time) int64, which of the spellings each word has.
            known: (batch, time, len(CUES)), the lexicon's cues.

        Returns:
            (batch, output_dim) logits.
        """
        if lengths is None:
            lengths = (ids != 0).sum(dim=1).clamp(min=1)
        states, real = self.states(ids, lengths, pieces, which, known)
        pooled = []
        if self.query is not None:
            weight = self.attention(states, real)
            pooled.append((weight[..., None] * states).sum(1))
        if self.max_pool:
            pooled.append(states.masked_fill(~real[..., None], -torch.inf).amax(1))
        if not pooled:
            pooled.append(self._ends(states, lengths))
        return self.head(self.dropouts[-1](torch.cat(pooled, dim=1)))

    def states(
        self,
        ids: Tensor,
        lengths: Tensor,
        pieces: Tensor | None = None,
        which: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The top layer's states (batch, time, units), and which steps are real (batch, time)."""
        step = torch.arange(ids.shape[1], device=ids.device)[None]
        real = step < lengths[:, None]
        # A text read from its end: padding stays behind it, so both directions meet only words.
        backwards = torch.where(real, lengths[:, None] - 1 - step, step)
        kept = self.word_dropout(torch.ones(ids.shape, device=ids.device)) > 0
        x = self.embedding(torch.where(kept, ids, UNKNOWN))
        parts = [x]
        if self.spelling is not None and pieces is not None and which is not None:
            parts.append(nn.functional.embedding(which, self.spelling(pieces)))
        x = torch.cat(parts, dim=2)
        x = x * self.embedding_dropout(torch.ones_like(x[:, :1]))
        if self.with_cues and known is not None:
            x = torch.cat([x, known], dim=2)
        for depth, layer in enumerate(self.layers):
            if depth:
                x = self.dropouts[depth - 1](x)
            read = [layer(x)[0]]
            if self.backward_layers:
                mirrored = self.backward_layers[depth](_reordered(x, backwards))[0]
                read.append(_reordered(mirrored, backwards))
            x = torch.cat(read, dim=2)
        return x, real

    def attention(self, states: Tensor, real: Tensor) -> Tensor:
        """How much each state counts, softmax(q . tanh(h)) over the real steps: (batch, time)."""
        assert self.query is not None
        score = self.query(states.tanh()).squeeze(2)
        return score.masked_fill(~real, -torch.inf).softmax(dim=1)

    def _ends(self, states: Tensor, lengths: Tensor) -> Tensor:
        """The last state of each direction; the backward one's stands at the first word."""
        if not self.backward_layers:
            return last_states(states, lengths)
        forwards, backwards = states.chunk(2, dim=2)
        return torch.cat([last_states(forwards, lengths), backwards[:, 0]], dim=1)


def _reordered(x: Tensor, order: Tensor) -> Tensor:
    """``x`` (batch, time, units) with the steps of each row in its own order (batch, time)."""
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))


class Headlines:
    """Texts as numbers; :meth:`batch` gathers some of them for :class:`SentimentLSTM`.

    Every distinct word is spelt and looked up once, however often it is read.

    Args:
        texts: headlines.
        vocabulary: of training texts.
        max_len: words kept of a text.
        spellings: buckets of letter n-grams.
        device: where the numbers lie.
    """

    def __init__(
        self,
        texts: Sequence[str],
        vocabulary: Vocabulary,
        max_len: int,
        spellings: int,
        device: torch.device,
    ) -> None:
        ids, lengths = vocabulary.encode(texts, max_len)
        words: dict[str, int] = {"": 0}
        spelt = np.zeros_like(ids)
        known = np.zeros((*ids.shape, len(CUES)), np.float32)
        for row, text in enumerate(texts):
            tokens = tokenise(text)[:max_len] or [UNK]
            known[row, : len(tokens)] = cues(tokens)
            spelt[row, : len(tokens)] = [words.setdefault(word, len(words)) for word in tokens]
        self.ids, self.lengths, self.words, self.pieces, self.known = (
            torch.from_numpy(array).to(device)
            for array in (
                ids,
                lengths,
                spelt,
                np.stack([_pieces(word, spellings) for word in words]),
                known,
            )
        )

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What :meth:`SentimentLSTM.forward` takes, for the texts in these rows.

        Most headlines are far shorter than ``max_len``: steps that no row needs are left out.
        """
        lengths = self.lengths[rows]
        longest = int(lengths.max())
        words = self.words[rows, :longest]
        distinct, which = words.unique(return_inverse=True)
        return (
            self.ids[rows, :longest],
            lengths,
            self.pieces[distinct],
            which,
            self.known[rows, :longest],
        )


def _pieces(word: str, buckets: int) -> np.ndarray:
    """The buckets of a word's letter n-grams, from 1 to ``buckets - 1``, 0 behind the last."""
    pieces = np.zeros(MAX_PIECES, dtype=np.int64)
    if word and buckets:
        spelt = f"<{word}>"
        found = [
            1 + zlib.crc32(spelt[start : start + size].encode()) % (buckets - 1)
            for size in PIECE_SIZES
            for start in range(len(spelt) - size + 1)
        ][:MAX_PIECES]
        pieces[: len(found)] = found
    return pieces
