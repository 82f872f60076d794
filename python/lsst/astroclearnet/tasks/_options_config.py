# This file is part of lsst.astroclearnet.
#
# See the COPYRIGHT file at the top-level directory of this distribution
# for details of code ownership.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Configuration of the restoration, made of the options of the core."""

from __future__ import annotations

__all__ = ()

import dataclasses
import types
import typing
from typing import Any, ClassVar

from lsst.pex.config import ChoiceField, Config, ConfigField, Field, ListField, RangeField

from ..core import RestoreOptions, TrainingOptions


class OptionsConfig(Config):
    """Configuration with the fields of a class of options."""

    options_class: ClassVar[Any]

    def make_options(self) -> Any:
        """Return the options of the core with the same settings.

        Returns
        -------
        options
            An object of the dataclass that the configuration was made of.
        """
        values = {}
        for name, field in self._fields.items():
            value = getattr(self, name)
            if isinstance(field, ConfigField):
                value = value.make_options()
            values[name] = tuple(value) if isinstance(field, ListField) else value
        return self.options_class(**values)

    def validate(self) -> None:
        super().validate()
        subject = self._name.rpartition(".")[2]
        for field in dataclasses.fields(self.options_class):
            other = field.metadata.get("at_most")
            if other is not None and getattr(self, field.name) > getattr(self, other):
                raise ValueError(
                    f"{subject}.{field.name}={getattr(self, field.name)} must not exceed "
                    f"{subject}.{other}={getattr(self, other)}."
                )


def _make_config(options: type[Any], name: str) -> Any:
    """Return a configuration class with a field for each option."""
    dtypes = typing.get_type_hints(options)
    summary = str(options.__doc__).partition("\n")[0]
    fields = {field.name: _make_field(field, dtypes[field.name]) for field in dataclasses.fields(options)}
    members = {"__doc__": summary, "__module__": __name__, "options_class": options}
    made = types.new_class(name, (OptionsConfig,), exec_body=lambda space: space.update(members | fields))
    # Where a saved or pickled configuration looks for its class.
    globals()[name] = made
    return made


def _make_field(field: dataclasses.Field[Any], dtype: Any) -> Field[Any]:
    """Return the configuration field of an option."""
    if dataclasses.is_dataclass(dtype):
        options = typing.cast(type[Any], dtype)
        config = _make_config(options, options.__name__.replace("Options", "Config"))
        return ConfigField(doc=config.__doc__, dtype=config)
    limits, default = field.metadata, typing.cast(Any, field.default)
    doc = limits["doc"] + (f" Unit: {limits['unit']}." if "unit" in limits else "")
    if limits.get("rising"):
        return ListField(
            doc=doc,
            dtype=typing.get_args(dtype)[0],
            default=list(default),
            minLength=2,
            itemCheck=lambda item: item > limits["above"],
            listCheck=lambda items: list(items) == sorted(set(items)),
        )
    if "choices" in limits:
        return ChoiceField(
            doc=doc, dtype=dtype, default=default, allowed=dict(limits["choices"]), optional=False
        )
    if "minimum" in limits or "above" in limits:
        return RangeField(
            doc=doc,
            dtype=dtype,
            default=default,
            min=limits.get("minimum", limits.get("above")),
            max=limits.get("below"),
            inclusiveMin="minimum" in limits,
        )
    return Field(doc=doc, dtype=dtype, default=default)


RestorationConfig = _make_config(RestoreOptions, "RestorationConfig")
"""All settings of the restoration of a patch."""

TrainingConfig = _make_config(TrainingOptions, "TrainingConfig")
"""All settings of the training of a network."""
