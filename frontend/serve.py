"""``python -m frontend.serve``: gunicorn's parent process. Started by ``frontend``, not by hand.

PERF: it waits for the model when all is imported, not before: 0.6 s of a start beside other work.

gunicorn as a library: unlike its command line, it then looks neither at the environment nor into
the current directory.
"""

from gunicorn.app.base import BaseApplication

from common.settings import load
from frontend import gunicorn_conf
from frontend.parent import Parent
from frontend.patience import wait_for_model
from frontend.wiring import FrontEnd, application


class GunicornApplication(BaseApplication):  # type: ignore[misc]
    """Settings from ``gunicorn_conf.py``, the application from ``wiring.py``."""

    def load_config(self) -> None:
        """Every name of the settings module that gunicorn knows."""
        for name, value in vars(gunicorn_conf).items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def run(self) -> None:
        """Be the parent. Does not return."""
        Parent(self).run()

    is_start = True
    """Whether the worker that is begun is one of the first, not another one's successor."""

    def load(self) -> FrontEnd:
        """Called in each worker."""
        return application(is_start=self.is_start)


if __name__ == "__main__":
    server = GunicornApplication()
    wait_for_model(load().runtime_dir)
    server.run()
