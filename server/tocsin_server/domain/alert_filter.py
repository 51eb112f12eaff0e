"""Conditions over alerts: the CEL expression of FindAlerts' `filter`, bounded as a `where` is."""

from __future__ import annotations

from functools import lru_cache

from cel_expr_python import cel
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message_factory import GetMessageClass

from tocsin_server.domain.alerting import Alert, AlertStatus, NotifyWhen
from tocsin_server.domain.conditions import condition, pool_of
from tocsin_server.domain.where import WhereError
from tocsin_server.domain.where_cost import compared

TEXTS = (
    "id", "name", "alert_type_id", "consumer", "interval", "throttle", "notify_when", "status", "created_by",
    "updated_by",
)  # fmt: skip
LISTS = ("tags", "muted_instance_ids", "configuration_ids")
SWITCHES = ("enabled", "mute_all")
TIMES = ("create_time", "update_time")
WORDS = {"status": AlertStatus, "notify_when": NotifyWhen}


class AlertFilter:
    """A compiled condition."""

    __slots__ = ("_expression",)

    def __init__(self, expression: cel.Expression) -> None:
        self._expression = expression

    def matches(self, alert: Alert) -> bool:
        """Tell whether an alert meets the condition; one that it cannot be asked about does not."""
        try:
            return self._expression.eval(data={"alert": _message(alert)}).value() is True
        except RuntimeError:
            return False  # the budget of iterations is spent


@lru_cache(maxsize=256)
def compiled(text: str) -> AlertFilter:
    """Compile a condition; WhereError says what is wrong with it, or that no alert could ever have what it asks for."""
    expression = condition(_ENVIRONMENT, text, "an alert")
    for name, word in compared(expression.serialize(), "alert"):
        known = WORDS.get(name)
        if known is not None and word not in list(known):
            raise WhereError(f"alert.{name} is never {word!r}: it is one of {', '.join(known)}")
    return AlertFilter(expression)


def _message(alert: Alert) -> object:
    spec = alert.spec
    message = _ALERT(
        id=alert.id,
        name=spec.name,
        alert_type_id=spec.alert_type_id,
        consumer=spec.consumer,
        interval=spec.interval,
        throttle=spec.throttle,
        notify_when=spec.notifies_when,
        status=alert.status,
        created_by=alert.created_by,
        updated_by=alert.updated_by,
        tags=spec.tags,
        muted_instance_ids=alert.muted_instance_ids,
        configuration_ids=[action.configuration_id for action in spec.actions],
        enabled=alert.enabled,
        mute_all=alert.mute_all,
    )
    for name, micros in (("create_time", alert.created_at), ("update_time", alert.updated_at)):
        time = getattr(message, name)  # of this pool: another Timestamp than that of the generated code
        time.seconds, time.nanos = micros // 1_000_000, micros % 1_000_000 * 1000
    json_format.ParseDict(dict(spec.params), message.params)  # type: ignore[attr-defined]
    return message


def _described() -> DescriptorProto:
    alert, kinds = DescriptorProto(name="Alert"), FieldDescriptorProto
    for number, name in enumerate((*TEXTS, *LISTS, *SWITCHES, *TIMES, "params"), start=1):
        field = alert.field.add(name=name, number=number, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
        if name in LISTS:
            field.label = kinds.LABEL_REPEATED
        elif name in SWITCHES:
            field.type = kinds.TYPE_BOOL
        elif name not in TEXTS:
            field.type = kinds.TYPE_MESSAGE
            field.type_name = ".google.protobuf.Struct" if name == "params" else ".google.protobuf.Timestamp"
    return alert


_POOL = pool_of([_described()], "alert_filter.proto")
_ALERT = GetMessageClass(_POOL.FindMessageTypeByName("tocsin.Alert"))
_ENVIRONMENT = cel.NewEnv(_POOL, variables={"alert": cel.Type("tocsin.Alert")})
