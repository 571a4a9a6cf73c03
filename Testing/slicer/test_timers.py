"""Timers belong to the application: what Python frees in another thread must not take an active one with it."""

from __future__ import annotations

import gc
import threading
import weakref

from panel_fixtures import until


def test_a_job_that_is_freed_in_another_thread_leaves_its_timer_to_the_application(qt_application):
    import qt
    from MedMAESegmentLib.FollowedJob import FollowedJob

    class Job(FollowedJob):
        def poll(self):
            return False

        def cancel(self):
            pass

    def timers():
        return len(qt_application.application.findChildren(qt.QTimer))

    qt_application.processDeletions()  # of timers of earlier tests
    before = timers()
    job = Job()
    job.finished.connect(job.cancel)  # a cycle, as jobs make with those who follow them
    job.startFollowing()
    freed = weakref.ref(job)
    del job
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()
    assert freed() is None
    assert timers() == before + 1  # deleted in that thread, it would fire into freed memory from now on
    until(qt_application, lambda: True)


def test_a_job_that_ends_takes_its_timer_along(qt_application):
    import qt
    from MedMAESegmentLib.FollowedJob import FollowedJob

    class Job(FollowedJob):
        def poll(self):
            self._end("done")
            return True

        def cancel(self):
            pass

    qt_application.processDeletions()  # of timers of earlier tests
    before = len(qt_application.application.findChildren(qt.QTimer))
    job = Job()
    job.startFollowing()
    until(qt_application, lambda: job.ended)
    qt_application.processDeletions()
    assert len(qt_application.application.findChildren(qt.QTimer)) == before
