// Runs before the first paint, so that a remembered theme never flashes the other one.
{
  const remembered = localStorage.getItem("tapehouse-theme");
  if (remembered) document.documentElement.dataset.theme = remembered;
}
