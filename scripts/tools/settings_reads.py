"""Which flags of the settings dataclasses no code reads, by following types through the source.

A flag counts as read where `.flag` is taken from an expression whose type is known to be its settings class: an annotated
parameter or attribute, what a function is annotated to return, or a variable assigned from one of these. Validation in
__post_init__ and records made by `cli.flat` do not count. check_house.py calls this.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Key = tuple[str, str]  # (file, class): every stage has a class called Settings


@dataclass
class Class:
    """A class of the source: the types of its attributes and methods, and, of settings, its flags with their help texts."""

    bases: list[str]
    attributes: dict[str, ast.expr | None] = field(default_factory=dict)
    returns: dict[str, ast.expr | None] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)


class Source:
    """All classes and functions of some files, and the flags that their code reads."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.trees = {str(p): ast.parse(p.read_text(encoding="utf-8")) for p in paths}
        self.classes: dict[Key, Class] = {}
        self.functions: dict[tuple[str, str], ast.expr | None] = {}  # by file and name, and by ("", name)
        self.read: set[tuple[Key, str]] = set()
        for path, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self.classes[path, node.name] = self._class(node)
                elif isinstance(node, ast.FunctionDef):
                    self.functions.setdefault((path, node.name), node.returns)
                    self.functions.setdefault(("", node.name), node.returns)
        for _ in range(2):  # attributes that are set in __init__ are known after the first round
            for path, tree in self.trees.items():
                self._body(path, tree.body, {})

    @staticmethod
    def _class(node: ast.ClassDef) -> Class:
        found = Class([b.id for b in node.bases if isinstance(b, ast.Name)])
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                made = item.value.func if isinstance(item.value, ast.Call) else None
                kind = made.attr if isinstance(made, ast.Attribute) else made.id if isinstance(made, ast.Name) else ""
                if kind == "flag" and isinstance(item.value, ast.Call):
                    found.flags[item.target.id] = _help(item.value)
                else:
                    found.attributes[item.target.id] = item.annotation
            elif isinstance(item, ast.FunctionDef):
                is_property = any(isinstance(d, ast.Name) and d.id.endswith("property") for d in item.decorator_list)
                (found.attributes if is_property else found.returns)[item.name] = item.returns
        return found

    def unread(self) -> Iterator[str]:
        """Flags that nothing reads, and flags without a help text."""
        for (path, name), found in self.classes.items():
            for flag, help_text in found.flags.items():
                if ((path, name), flag) not in self.read:
                    yield f"{path}: nothing reads {name}.{flag}"
                if not help_text:
                    yield f"{path}: {name}.{flag} has no help text"

    # ------------------------------------------------------------------------------------------------- types

    def _named(self, path: str, annotation: ast.expr | None) -> Key | None:
        """The class that an annotation means: the first that is known, in this file before others."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        for node in ast.walk(annotation) if annotation is not None else ():
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            found = [key for key in self.classes if key[1] == name]
            if found:
                return next((key for key in found if key[0] == path), found[0])
        return None

    def _attribute(self, key: Key, name: str) -> tuple[str, object]:
        """("flag", its class), ("type", annotation) or ("", None) for an attribute of a class or of its bases."""
        found = self.classes[key]
        if name in found.flags:
            return "flag", key
        if name in found.attributes:
            return "type", (key[0], found.attributes[name])
        for base in found.bases:
            other = self._named(key[0], ast.Name(base))
            if other and other != key and (kind := self._attribute(other, name))[0]:
                return kind
        return "", None

    def _type(self, path: str, node: ast.expr, known: dict[str, Key]) -> Key | None:
        """The class of an expression; notes every flag that it reads."""
        for part in ast.iter_child_nodes(node):
            child = part.value if isinstance(part, ast.keyword) else part
            if isinstance(child, ast.expr) and not isinstance(node, ast.Attribute | ast.Lambda):
                self._type(path, child, known)
        if isinstance(node, ast.Lambda):
            self._type(path, node.body, known)
        elif isinstance(node, ast.Name):
            return known.get(node.id)
        elif isinstance(node, ast.Attribute):
            owner = self._type(path, node.value, known)
            kind, found = self._attribute(owner, node.attr) if owner else ("", None)
            if kind == "flag" and isinstance(found, tuple):
                self.read.add((found, node.attr))
            elif kind == "type" and isinstance(found, tuple):
                return self._named(*found)
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "parse" and len(node.args) > 1:  # cli.parse(description, Settings, argv)
                return self._named(path, node.args[1])
            if name in ("replace", "followed") and node.args:  # dataclasses.replace(settings, ...), cli.followed
                return self._type(path, node.args[0], known)
            if isinstance(node.func, ast.Attribute) and (owner := self._type(path, node.func.value, known)):
                return self._named(owner[0], self.classes[owner].returns.get(name))
            return self._named(path, node.func) or self._named(
                path, self.functions.get((path, name), self.functions.get(("", name)))
            )
        elif isinstance(node, ast.BoolOp | ast.IfExp):
            parts = node.values if isinstance(node, ast.BoolOp) else [node.body, node.orelse]
            return next((t for t in (self._type(path, p, known) for p in parts) if t), None)
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            for loop in node.generators:
                for child in (loop.iter, *loop.ifs):
                    self._type(path, child, known)
        return None

    # -------------------------------------------------------------------------------------------- statements

    def _body(self, path: str, body: list[ast.stmt], known: dict[str, Key], owner: Key | None = None) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                self._body(path, node.body, known, (path, node.name))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name == "__post_init__" and owner and self.classes[owner].flags:
                    continue
                inner = dict(known)
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                for argument in given:
                    inner.pop(argument.arg, None)
                    if found := self._named(path, argument.annotation):
                        inner[argument.arg] = found
                if owner and given and given[0].arg == "self":
                    inner["self"] = owner
                self._body(path, node.body, inner)
            elif isinstance(node, ast.Assign):
                self._assign(path, node.targets[0], node.value, known)
            else:
                for _, value in ast.iter_fields(node):
                    parts = value if isinstance(value, list) else [value]
                    for part in parts:
                        if isinstance(part, ast.expr):
                            self._type(path, part, known)
                        elif isinstance(part, ast.withitem):
                            found = self._type(path, part.context_expr, known)
                            if found and isinstance(part.optional_vars, ast.Name):
                                known[part.optional_vars.id] = found
                        elif isinstance(part, ast.ExceptHandler | ast.match_case):
                            self._body(path, part.body, known)
                    if parts and isinstance(parts[0], ast.stmt):
                        self._body(path, parts, known)

    def _assign(self, path: str, target: ast.expr, value: ast.expr, known: dict[str, Key]) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for part, given in zip(target.elts, value.elts, strict=True):
                self._assign(path, part, given, known)
            return
        found = self._type(path, value, known)
        if isinstance(target, ast.Name):
            known.pop(target.id, None)
            if found:
                known[target.id] = found
        elif isinstance(target, ast.Attribute) and found:
            owner = self._type(path, target.value, known)
            if owner and not self._attribute(owner, target.attr)[0]:
                self.classes[owner].attributes[target.attr] = ast.Constant(found[1])


def _help(call: ast.Call) -> str:
    """The help text of a `flag(...)`: its second argument, or the keyword."""
    given = call.args[1:2] + [k.value for k in call.keywords if k.arg == "help"]
    return ast.unparse(given[0]).strip("'\"") if given else ""
