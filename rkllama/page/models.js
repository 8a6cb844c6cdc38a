export const modelsView = {
  mount() {},
};
