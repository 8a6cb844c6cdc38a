// What is done only while somebody looks at the page.

/** Whether the page is in sight: a tab in the background is not. */
export function isInSight() {
  return document.visibilityState === 'visible';
}

/** Call `look()` whenever the page comes into sight or goes out of it; returns what ends that. */
export function onSight(look) {
  document.addEventListener('visibilitychange', look);
  return () => document.removeEventListener('visibilitychange', look);
}

/** Call `tick()` each second in which the page is in sight; returns what ends that. */
export function eachSecond(tick) {
  const clock = setInterval(() => isInSight() && tick(), 1000);
  return () => clearInterval(clock);
}
