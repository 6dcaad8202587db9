"""Turns messages to one model into submitted requests, and outcomes into answers; the same for HTTP and gRPC.

A `Plan` is everything about a request that its head decides. Clients repeat their heads byte for byte, so plans are
cached by head: a request whose head is known costs one look-up and one view per tensor.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from serving.api.beside import LONG_ANSWER_BYTES, LONG_BYTES, LONG_ELEMENTS
from serving.api.classification import best_classes
from serving.api.recall import Recall
from serving.api.served import ServedModel
from serving.api.shared_memory.regions import OutputTarget
from serving.api.signature import check_inputs, choose_outputs
from serving.api.terms import Terms, asked
from serving.core.backend import Answers, Submitted
from serving.core.outcome import Completed
from serving.protocol.binary_codec import head_of
from serving.protocol.errors import BadMessage, BadOutput
from serving.protocol.layout import RequestLayout, TensorLayout, lay_out, lay_out_raw
from serving.protocol.messages import Tensor
from serving.protocol.reply import HeaderBlock, ReplyFormat, ReplyWriter

MAX_KEPT_FORMS = 256
SHARED_MEMORY_IS_OFF = "shared memory is off on this server; the setting server.shared_memory allows it"
# Printable ASCII without escapes; a head with any other id is looked up as a whole.
_LEADING_ID = re.compile(rb'\{"id": ?"([ !#-\[\]-~]{1,200})", ?(?=")')


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Terms):
    """Everything about a request that its head decides.

    targets: the outputs that are written to shared memory; unlike the rest of a plan, they belong to one request.
    """

    layout: RequestLayout
    form: ReplyFormat
    targets: tuple[OutputTarget, ...] = ()


class ReadRequest(NamedTuple):
    """A request whose tensors have been read, except those in shared memory."""

    plan: Plan
    id: str
    payload: dict[str, Tensor]


class Dispatch:
    """Plans, submits and answers the requests of one model."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self._submit = model.backend.submit
        self._has_texts = any(tensor.datatype == "BYTES" for tensor in model.inputs)
        self._writer = ReplyWriter(model.name, model.version)
        self._forms: dict[object, ReplyFormat] = {}
        self._plans: Recall[Plan] = Recall()  # by head
        self._raw_plans: Recall[Plan] = Recall()  # by the length of a raw body

    def plan(self, body: bytes, header_length: int | None, tenant: str = "") -> tuple[Plan, str, int]:
        """Returns the plan for a body, the request's id, and the length of its head in bytes. Raises BadMessage.

        header_length: the length of the JSON in front of the binary data; None if the whole body is JSON, 0 if the
            body is the raw data of the model's only input. tenant: the one whose regions the request may name.
        """
        plan, id, head_bytes = self._found(body, header_length)
        return (self.placed(plan, tenant) if plan.form.shared else plan), id, head_bytes

    def takes_long(self, body: bytes, header_length: int | None) -> bool:
        """Returns whether to call `read` in a thread instead of `plan` on the event loop.

        Only JSON and texts take long: views of binary numbers take no time, however large the tensors are."""
        if len(body) <= LONG_BYTES:
            return False
        return header_length is None or header_length > LONG_BYTES or (self._has_texts and header_length > 0)

    def read(self, body: bytes, header_length: int | None) -> ReadRequest:
        """Makes the plan for a body and reads the tensors. May be called in any thread. Raises BadMessage."""
        plan, id, head_bytes = self._found(body, header_length)
        return ReadRequest(plan, id, plan.layout.read(body, head_bytes))

    def _found(self, body: bytes, header_length: int | None) -> tuple[Plan, str, int]:
        if header_length is None:
            plan = self._plan(lay_out(body))
            return plan, plan.layout.id, len(body)
        if header_length == 0:
            return self._found_raw(body), "", 0
        head = head_of(body, header_length)
        # Ids differ from request to request. The look-up ignores an id at the beginning, where tritonclient puts it.
        leading = _LEADING_ID.match(head) if head.startswith(b'{"id"') else None
        key = head if leading is None else head[leading.end() :]
        kept = self._plans.get(key)
        if kept is None:
            kept = self._plan(lay_out(head if leading is None else b"{" + key))
            if kept.layout.is_reusable:
                self._plans.keep(key, kept)
        # If the id is given twice, the last one counts, as everywhere in JSON.
        id = kept.layout.id or (leading[1].decode() if leading else "")
        return kept, id, header_length

    def _found_raw(self, body: bytes) -> Plan:
        """Returns the plan for a raw body, which depends on nothing but its length, unless the body is a text."""
        length = b"%d" % len(body)
        kept = self._raw_plans.get(length)
        if kept is None:
            kept = self._plan_raw(body)
            if kept.layout.is_reusable:
                self._raw_plans.keep(length, kept)
        return kept

    def placed(self, plan: Plan, tenant: str) -> Plan:
        """Returns the plan with the places of this request's outputs, in shared memory of its tenant.

        Raises BadMessage if such a place does not exist or is too small."""
        if not plan.form.shared:
            return plan
        regions = self.model.regions
        assert regions is not None
        return replace(
            plan,
            targets=tuple(
                OutputTarget(output, regions, index, tenant) for index, output in enumerate(plan.form.shared)
            ),
        )

    def read_shared(self, tensors: tuple[TensorLayout, ...], tenant: str) -> dict[str, Tensor]:
        """Returns the inputs that lie in shared memory of this tenant. Raises BadMessage."""
        regions = self.model.regions
        assert regions is not None
        return {tensor.name: regions.read(tensor, tenant) for tensor in tensors}

    def submit(self, plan: Plan, body: bytes, head_bytes: int, tenant: str = "", age_ns: int = 0) -> Submitted:
        """Reads the tensors of a body and submits the request.

        head_bytes: where the binary data begin in the body.
        age_ns: how long the request was under way before it was read; it counts against its deadline.
        Raises BadMessage if the body is not as long as its head states, or if BYTES in it are damaged.
        """
        return self._submit_read(plan, plan.layout.read(body, head_bytes), tenant, age_ns)

    def submit_read(self, request: ReadRequest, tenant: str = "", age_ns: int = 0) -> tuple[Plan, Submitted]:
        """Submits a request that `read` returned. Returns its plan too, now with its places in shared memory."""
        plan = self.placed(request.plan, tenant)
        return plan, self._submit_read(plan, request.payload, tenant, age_ns)

    def _submit_read(self, plan: Plan, payload: dict[str, Tensor], tenant: str, age_ns: int) -> Submitted:
        if plan.layout.shared:
            payload |= self.read_shared(plan.layout.shared, tenant)
        return self.hand_over(plan, payload, tenant, plan.timeout_ns, age_ns)

    def hand_over(
        self, terms: Terms, payload: dict[str, Tensor], tenant: str, timeout_ns: int | None, age_ns: int
    ) -> Submitted:
        """Submits a request whose inputs are complete; if it belongs to a sequence, to its place in that.

        timeout_ns: how long its client waits; over gRPC the deadline of the call may be shorter than that of the terms.
        """
        rows, priority = terms.rows, terms.priority
        if terms.place is not None:
            assert self.model.sequencer is not None
            return self.model.sequencer.submit_in(
                terms.place, payload, rows=rows, tenant=tenant, priority=priority, timeout_ns=timeout_ns, **terms.more
            )
        submit: Callable[..., Submitted] = partial(self._submit, **terms.more) if terms.more else self._submit
        return submit(payload, rows=rows, tenant=tenant, priority=priority, timeout_ns=timeout_ns, age_ns=age_ns)

    def generate(self, terms: Terms, payload: dict[str, Tensor], tenant: str, timeout_ns: int | None) -> Answers:
        """Submits a request to a generating model, which sends any number of answers."""
        assert self.model.generator is not None
        return self.model.generator.generate(
            payload, tenant=tenant, priority=terms.priority, timeout_ns=timeout_ns, **terms.more
        )

    def reply(self, plan: Plan, completed: Completed, id: str = "") -> tuple[HeaderBlock, bytes]:
        """Returns headers and body of the answer. Raises BadOutput or BadTensor."""
        return self._writer.write(plan.form, self._answer(plan, completed), id)

    def writes_long(self, plan: Plan, completed: Completed) -> bool:
        """Returns whether to call `reply` in a thread instead of on the event loop.

        That is so if many elements are written one by one, or very many bytes are copied."""
        values: Any = completed.value
        try:
            if plan.form.is_plain:
                size = 0
                for name in plan.form.names:
                    size += values[name].nbytes
                return size > LONG_ANSWER_BYTES
            if plan.targets:
                return False
            elements: int = sum(values[name].size for name in plan.form.names if name in values)
            return elements > LONG_ELEMENTS
        except (TypeError, LookupError, AttributeError):
            return False  # the model returned no outputs; `reply` raises BadOutput

    def _answer(self, plan: Plan, completed: Completed) -> Any:
        """Returns the outputs in the form that the request asks for, and writes those for shared memory there."""
        values: Any = completed.value
        if plan.form.has_classes:
            values = self._classified(plan.form, values)
        for target in plan.targets:
            target.write(values)
        return values

    def _plan(self, layout: RequestLayout) -> Plan:
        if self.model.regions is None and (layout.shared or any(output.span for output in layout.outputs)):
            raise BadMessage(SHARED_MEMORY_IS_OFF)
        rows = check_inputs(self.model.inputs, layout.inputs)
        formats = choose_outputs(
            self.model.outputs, layout.outputs, bool(layout.parameters.get("binary_data_output", False))
        )
        return Plan(layout=layout, form=self._form(formats), **asked(self.model, layout.parameters, rows))

    def _plan_raw(self, body: bytes) -> Plan:
        if len(self.model.inputs) != 1:
            raise BadMessage(
                "Inference-Header-Content-Length 0 announces a raw body, which needs a model with exactly one input"
            )
        layout = lay_out_raw(self.model.inputs[0], body)
        rows = check_inputs(self.model.inputs, layout.inputs)
        form = self._form(choose_outputs(self.model.outputs, (), True))
        return Plan(layout=layout, form=form, **asked(self.model, {}, rows))

    def _form(self, formats: tuple[Any, ...]) -> ReplyFormat:
        form = self._forms.get(formats)
        if form is None:
            if len(self._forms) >= MAX_KEPT_FORMS:
                self._forms.clear()
            form = self._forms[formats] = ReplyFormat(formats)
        return form

    def _classified(self, form: ReplyFormat, values: Any) -> dict[str, Tensor]:
        chosen = dict(values)
        for output in form.outputs:
            if output.classes and output.name not in chosen:
                raise BadOutput(f"the model returned no output {output.name!r}")
            if output.classes:
                labels = self.model.labels.get(output.name, ())
                scores = chosen[output.name]
                chosen[output.name] = best_classes(scores, output.classes, labels, batched=self.model.batched)
        return chosen
