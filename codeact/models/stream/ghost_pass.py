"""One pack: a pass forward, a pass back, and what hooks on the modules hear of both."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from codeact.models.direction import Direction
from codeact.models.hidden_states import OutputHead, hidden_states, output_head
from codeact.models.stream.ghost_pairs import GradientGram
from codeact.models.stream.ghost_products import Call, ProductSums, head_gradients, is_linear
from codeact.ops.linear_nll_gradient import linear_nll_gradients
from codeact.ops.segments import segment_sums
from codeact.ops.streamed import Logits
from codeact.ops.varlen import IGNORE_INDEX, PackedBatch, pack_sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NUM_PROBED = 37  # tokens: a prime, which hardly a number of heads is

Visit = Callable[[Call, Tensor], None]
"""Takes a call and the loss's gradient with respect to its output."""


class _Listener:
    """What the hooks of one pass report to."""

    def __init__(self, visit: Visit | None, num_tokens: int) -> None:
        self.visit = visit  # None: the place of the tokens in each output is to be learnt
        self.num_tokens = num_tokens
        self.num_calls: Counter[str] = Counter()
        self.modules: set[nn.Module] = set()


class ModuleCalls:
    """Hooks on the modules that hold the named parameters, all but the output head.

    Passes may run in several threads: each hears its own calls, and a thread outside of
    :meth:`heard` runs as if there were no hooks.

    Args:
        model: no parameter of it requires a gradient inside of :meth:`hooked`. The graph of a pass
            then begins at the first module that holds a named parameter, so that the backward pass
            ends there, and makes no gradient of a weight.
        head: its weight and bias are not hooked.
        names: of ``model.named_parameters()``.
    """

    def __init__(self, model: PreTrainedModel, head: OutputHead, names: Collection[str]) -> None:
        names_by_id = {id(p): name for name, p in model.named_parameters() if name in names}
        self._model = model
        self._own: dict[nn.Module, dict[str, str]] = {}
        self._axes: dict[nn.Module, int] = {}  # of each module's output, that of the tokens
        self._current = threading.local()
        projection = set(model.get_output_embeddings().modules())
        of_head = {id(head.weight), id(head.bias)}
        for module in model.modules():
            own = {
                local: names_by_id[id(p)]
                for local, p in module._parameters.items()
                if id(p) in names_by_id and not (module in projection and id(p) in of_head)
            }
            if own:
                self._own[module] = own

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Inside, the hooks are there and no parameter requires a gradient."""
        trainable = [p for p in self._model.parameters() if p.requires_grad]
        handles = []
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            for module in self._own:
                handle = module.register_forward_hook(self._hear, with_kwargs=True)
                handles.append(handle)
            self._learn_axes()
            yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter in trainable:
                parameter.requires_grad_(True)

    @contextmanager
    def heard(self, visit: Visit, num_tokens: int) -> Iterator[Counter[str]]:
        """Inside, the forward pass of a pack of this thread is heard.

        Gives the number of calls of modules that hold a parameter, complete after the forward
        pass. ``visit`` is called during the backward pass, for each that the loss depends on.

        Raises:
            RuntimeError: a named parameter was not met, or the place of a sequence in what its
                module gives is not known.
        """
        listener = self._current.listener = _Listener(visit, num_tokens)
        try:
            with torch.enable_grad():
                yield listener.num_calls
        finally:
            self._current.listener = None
        for module, own in self._own.items():
            if module not in listener.modules:
                raise RuntimeError(
                    f"{next(iter(own.values()))} was not met in a pass: its module was not called "
                    "as one; use derivative='forward'"
                )

    @torch.no_grad()
    def _learn_axes(self) -> None:
        """Heads come before the tokens in some models' norms of queries and keys.

        A pack of as many tokens as there are heads would not tell which is which; this one does.
        """
        self._axes.clear()
        embedding: Any = self._model.get_input_embeddings()
        ids = np.arange(_NUM_PROBED) % len(embedding.weight)
        batch = pack_sequences([ids], [ids]).to(self._model.device)
        self._current.listener = _Listener(None, _NUM_PROBED)
        try:
            hidden_states(self._model, batch)
        finally:
            self._current.listener = None

    def _hear(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        listener: _Listener | None = getattr(self._current, "listener", None)
        if listener is None:
            return
        own = self._own[module]
        shape = output.shape if isinstance(output, Tensor) else torch.Size()
        if listener.visit is None:
            places = [axis for axis in range(1, len(shape) - 1) if shape[axis] == _NUM_PROBED]
            if is_linear(module) or isinstance(module, nn.Embedding):
                places = places if len(shape) == 3 else []
            if shape[:1] == (1,) and len(places) == 1:
                self._axes[module] = places[0]
            return
        axis = self._axes.get(module)
        # Experts are given some of the tokens, and a weight may be made of a weight.
        if axis is None or shape[0] != 1 or shape[axis] != listener.num_tokens:
            raise RuntimeError(
                f"{next(iter(own.values()))} is of a {type(module).__name__} that does not give "
                "(1, num_tokens, ...), so that its gradient has no known place in the pack; use "
                "derivative='forward'"
            )
        listener.modules.add(module)
        listener.num_calls.update(own.values())
        if not output.requires_grad:
            output.requires_grad_()
        # A list, emptied when used: what a layer was given is freed as the backward pass goes on.
        held = [Call(module, own, axis, _detached(args), _detached(kwargs))]
        visit = listener.visit
        output.register_hook(lambda gradient: _answer(visit, held.pop(), gradient))


def _answer(visit: Visit, call: Call, gradient: Tensor) -> None:
    with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
        visit(call, gradient)


def _detached(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, dict):
        return {key: _detached(value) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_detached(value) for value in values)
    return values


class GhostPass:
    """A model, what listens to it, and the directions: all that a pack needs.

    Args:
        model: in evaluation mode.
        directions: K of them.
        names: parameters whose gradients meet in :meth:`sums_and_gram`.
    """

    def __init__(
        self, model: PreTrainedModel, directions: Sequence[Direction], names: Collection[str] = ()
    ) -> None:
        self.device = model.device
        self._model, self._directions, self._names = model, directions, frozenset(names)
        self._head = output_head(model)
        moved = {name for direction in directions for name in direction}
        self.calls = ModuleCalls(model, self._head, moved | self._names)
        name_of = {id(p): name for name, p in model.named_parameters()}
        self._head_names = [name_of.get(id(p)) for p in (self._head.weight, self._head.bias)]
        self._is_head_met = any(name in moved | self._names for name in self._head_names)

    def sums(self, batch: PackedBatch, bounds: Sequence[int]) -> Tensor:
        """(1 + K, num_seqs) float64: the loss of each sequence, and its products.

        Args:
            batch: on the model's device.
            bounds: ``batch.cu_seqlens`` on the host.
        """
        return self._pass(batch, bounds, None)

    def sums_and_gram(self, batch: PackedBatch, bounds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Those, and the (num_seqs, num_seqs) products of the gradients of ``names``."""
        gram = GradientGram(self._names, bounds, batch)
        sums = self._pass(batch, bounds, gram)
        with torch.autocast(self.device.type, enabled=False):
            return sums, gram.read()

    def _pass(self, batch: PackedBatch, bounds: Sequence[int], gram: GradientGram | None) -> Tensor:
        device = batch.rows.device
        products = ProductSums(self._directions, bounds, device)
        if batch.cu_rows[-1] == 0:
            nothing = products.read(batch.cu_seqlens)
            return torch.cat([nothing.new_zeros(1, batch.num_seqs), nothing])

        def visit(call: Call, gradient: Tensor) -> None:
            products.visit(call, gradient)
            if gram is not None:
                gram.visit(call, gradient)

        with self.calls.heard(visit, batch.num_tokens) as num_calls:
            states = hidden_states(self._model, batch)[batch.rows]
        if gram is not None:
            gram.num_calls = num_calls
        cu_rows = torch.from_numpy(batch.cu_rows).to(device)
        with torch.autocast(device.type, enabled=False):
            nll, of_head = self._through_head(states, batch, gram)
        totals = segment_sums(nll, cu_rows)[None]
        return torch.cat([totals, of_head.read(cu_rows) + products.read(batch.cu_seqlens)])

    def _through_head(
        self, states: Tensor, batch: PackedBatch, gram: GradientGram | None
    ) -> tuple[Tensor, ProductSums]:
        """Losses of the rows and the head's part of the products; then the backward pass."""
        head = self._head
        inputs = states.detach().to(head.weight.dtype)  # they differ under autocast
        found = linear_nll_gradients(
            inputs,
            head.weight.detach(),
            batch.targets,
            None,
            bias=None if head.bias is None else head.bias.detach(),
            logits=Logits(head.scale, head.softcap),
            ignore_index=IGNORE_INDEX,
            want_hidden=states.requires_grad,
            want_weight=False,
            want_bias=False,
        )
        products = ProductSums(self._directions, batch.cu_rows.tolist(), inputs.device)
        if self._is_head_met:
            self._meet_head(inputs, batch.targets, found.nll, products, gram)
        if found.hidden_states is not None:
            states.backward(found.hidden_states.to(states.dtype))
        return found.nll, products

    def _meet_head(
        self,
        inputs: Tensor,
        targets: Tensor,
        nll: Tensor,
        products: ProductSums,
        gram: GradientGram | None,
    ) -> None:
        """What the projection brings to the products and the gram, a block at a time."""
        weight_name, bias_name = self._head_names
        weights = _named(self._directions, weight_name)
        biases = _named(self._directions, bias_name)
        scaled = inputs * self._head.scale
        for columns, left in head_gradients(self._head, inputs, targets, nll):
            # The tensor cores take half precision as it is; a CPU has none.
            dtype = inputs.dtype if inputs.is_cuda else left.dtype
            right = scaled.to(left.dtype)
            matrices = {k: v[columns] for k, v in weights.items()}
            products.add_matrix(left.to(dtype), right.to(dtype), matrices)
            products.add_bias(left, {k: v[columns] for k, v in biases.items()})
            if gram is not None and weight_name is not None and weight_name in self._names:
                gram.add_head(weight_name, columns, left, right)
            if gram is not None and bias_name in self._names:
                gram.add_head_bias(left)


def _named(directions: Sequence[Direction], name: str | None) -> dict[int, Tensor]:
    """The parts of one parameter, by the number of the direction."""
    if name is None:
        return {}
    return {k: direction[name] for k, direction in enumerate(directions) if name in direction}
