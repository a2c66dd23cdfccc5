"""`spec.network`: what may reach the workers, and what they may reach.

The fields of `egress` are those of a NetworkPolicy, with what its API server would refuse, or take
for something else than was meant, refused here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from dtjob_api.model import Model, rule, rules

_LABEL = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_MESSAGE = "must have at most 63 letters, digits, '-', '_' and '.', no sign at either end"
_LABEL_KEY = f"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL}$"
_KEY_MESSAGE = f"must be the key of a label: after an optional DNS name and '/' it {_LABEL_MESSAGE}"

LabelKey = Annotated[
    str,
    Field(
        max_length=317,
        json_schema_extra=rules(
            rule(f"self.matches('{_LABEL_KEY}')", _KEY_MESSAGE),
        ),
    ),
]
LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra=rules(
            rule(
                f"self.matches('^({_LABEL})?$')",
                f"must be the value of a label: it {_LABEL_MESSAGE}",
            )
        ),
    ),
]
Cidr = Annotated[
    str,
    Field(
        max_length=43,
        json_schema_extra=rules(
            rule(
                "isCIDR(self) && cidr(self).masked() == cidr(self)",
                "must be a network such as 10.0.0.0/8, 192.0.2.7/32 or fd00::/8: an address, a "
                "prefix length, and no bit of the address beyond it",
            )
        ),
    ),
]


class NetworkPolicyMode(StrEnum):
    """Whether a NetworkPolicy is made for the workers."""

    RESTRICTED = "Restricted"
    NONE = "None"


class LabelRequirement(Model):
    """One condition on the labels of an object."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(self.operator in ['In', 'NotIn']) == "
                "(has(self.values) && self.values.size() > 0)",
                "operators In and NotIn take values; Exists and DoesNotExist take none",
                field=".values",
            )
        )
    )

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[list[LabelValue], Field(max_length=16)] | None = None


class LabelSelector(Model):
    """Objects by their labels; an empty one selects all."""

    match_labels: (
        Annotated[
            dict[str, LabelValue],
            Field(
                max_length=16,
                json_schema_extra=rules(
                    rule(f"self.all(key, key.matches('{_LABEL_KEY}'))", f"each key {_KEY_MESSAGE}")
                ),
            ),
        ]
        | None
    ) = None
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=4)] | None = None


class IpBlock(Model):
    """Addresses, without some of them."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.except) || !isCIDR(self.cidr) || self.except.all(hole, !isCIDR(hole) || "
                "cidr(self.cidr).containsCIDR(hole) && "
                "cidr(hole).prefixLength() > cidr(self.cidr).prefixLength())",
                "each must be a smaller network within cidr; remove those that are not",
                field=".except",
            )
        )
    )

    cidr: Cidr
    except_: Annotated[
        Annotated[list[Cidr], Field(max_length=16)] | None, Field(alias="except")
    ] = None


class Peer(Model):
    """Where to: addresses, or pods by the labels of themselves and of their namespaces."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
                "must have either ipBlock, or podSelector, namespaceSelector or both",
            )
        )
    )

    ip_block: IpBlock | None = None
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None


_END_PORT_MESSAGE = "must be a number from port to 65535"


class Port(Model):
    """A port or, with `endPort`, a range of them."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.endPort) || self.endPort < 1 || self.endPort >= self.port",
                _END_PORT_MESSAGE,
                field=".endPort",
            )
        )
    )

    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: Annotated[
        int,
        Field(
            json_schema_extra=rules(
                rule("self >= 1 && self <= 65535", "must be a number from 1 to 65535")
            )
        ),
    ]
    end_port: (
        Annotated[
            int,
            Field(
                json_schema_extra=rules(
                    rule("self >= 1 && self <= 65535", _END_PORT_MESSAGE),
                )
            ),
        ]
        | None
    ) = None


class Egress(Model):
    """Destinations that the workers may reach besides one another, DNS and the API server."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.to.size() > 0",
                "must name a destination; all addresses are {ipBlock: {cidr: 0.0.0.0/0}}",
                field=".to",
            )
        )
    )

    to: Annotated[list[Peer], Field(max_length=8)]
    ports: Annotated[list[Port], Field(max_length=16)] | None = None
    """By default all."""


class Network(Model):
    """The NetworkPolicy of the workers."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.policy == 'Restricted' || !has(self.egress) || self.egress.size() == 0",
                "policy None makes no NetworkPolicy, and so closes nothing that egress could open: "
                "remove it, or set policy: Restricted",
                field=".egress",
            )
        )
    )

    policy: NetworkPolicyMode = NetworkPolicyMode.RESTRICTED
    egress: Annotated[list[Egress], Field(max_length=16)] = Field(default_factory=list)
