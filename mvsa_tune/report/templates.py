"""Pages from the templates beside this file, `*.j2`."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from mvsa_tune.formats import markdown_section


def render(template: str, **values: object) -> str:
    """Return a template with its values; text is escaped in HTML. An unknown value raises `jinja2.UndefinedError`."""
    environment = Environment(
        loader=PackageLoader("mvsa_tune.report", "."),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown_section
    return environment.get_template(template).render(values)
