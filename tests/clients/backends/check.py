"""What the tests of the Python backends share."""

import threading


def expect(actual, expected):
    """Fails unless the values are equal and of the same type."""
    if actual != expected or type(actual) is not type(expected):
        raise AssertionError(f"{actual!r:.200} is not {expected!r:.200}")


def refused(error, function, *arguments, **options):
    """Fails unless the call raises this error. Returns the error."""
    try:
        function(*arguments, **options)
    except error as found:
        return found
    raise AssertionError(f"{function} raises no error")


def at_once(count, function):
    """Runs a function in so many threads at once, and returns their results. An error in a thread is raised here."""
    results, barrier = [], threading.Barrier(count)

    def run():
        try:
            barrier.wait()
            results.append(function())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
